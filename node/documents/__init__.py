"""Documents: content by its CID, in the embedded store or an IPFS daemon; encrypted content, and grants to read it."""
