"""Believing a height without having run it: a commit certificate under a set of validators that is already believed.

Needs no node and no network. From the genesis set on, each header names the hash of the next set, so a chain of
headers with certificates carries the trust along.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from consensus.messages import ChainContext, CommitCertificate, Precommit, compute_signed_bytes
from consensus.validators import ValidatorSet
from ledger.errors import Rejected
from ledger.primitives import Hash, Height, is_valid_ed25519


@dataclass(frozen=True, slots=True)
class HeaderLink:
    """What the chain of trust needs of a header. That ``block_id`` is the hash of the header, the caller checks."""

    height: Height
    block_id: Hash
    parent_id: Hash
    validators_hash: Hash  # of the set that decided this height
    next_validators_hash: Hash


@dataclass(frozen=True, slots=True)
class LightBlock:
    """A header, the certificate that made it final, and the set that signed."""

    header: HeaderLink
    certificate: CommitCertificate
    validators: ValidatorSet


def verify_commit(certificate: CommitCertificate, validators: ValidatorSet, context: ChainContext) -> None:
    """A quorum of distinct members of ``validators`` precommitted the block on this chain.

    Raises ``Rejected``: ``certificate_of_another_chain``, ``certificate_signer_unknown``,
    ``certificate_signer_repeated``, ``certificate_signatures_too_few``, ``certificate_signature_invalid``.
    """
    if certificate.chain_hash != context.compute_hash():
        raise Rejected("certificate_of_another_chain", certificate.chain_hash.hex())
    seen = set()
    for signature in certificate.signatures:
        if validators.find_index(signature.voter) is None:
            raise Rejected("certificate_signer_unknown", signature.voter.hex())
        if signature.voter in seen:
            raise Rejected("certificate_signer_repeated", signature.voter.hex())
        seen.add(signature.voter)
    if len(seen) < validators.quorum:
        raise Rejected("certificate_signatures_too_few", f"{len(seen)} of {validators.quorum}")
    signed = compute_signed_bytes(context, Precommit(certificate.height, certificate.round, certificate.block_id))
    for signature in certificate.signatures:
        if not is_valid_ed25519(signature.voter, signed, signature.signature):
            raise Rejected("certificate_signature_invalid", signature.voter.hex())


def verify_light_block(block: LightBlock, context: ChainContext) -> None:
    """The certificate is for this header, and the set that signed is the one the header names.

    Raises ``Rejected``: ``certificate_of_another_block``, ``validators_not_those_of_header``, and as `verify_commit`.
    """
    header, certificate = block.header, block.certificate
    if (certificate.height, certificate.block_id) != (header.height, header.block_id):
        raise Rejected("certificate_of_another_block", f"height {certificate.height}")
    if block.validators.compute_hash() != header.validators_hash:
        raise Rejected("validators_not_those_of_header", f"height {header.height}")
    verify_commit(certificate, block.validators, context)


def verify_chain(
    blocks: Iterable[LightBlock], context: ChainContext, *, parent: HeaderLink, validators_hash: Hash
) -> HeaderLink:
    """Follow ``blocks``, each the child of the one before, from a believed ``parent``; returns the last header.

    ``validators_hash`` is the believed hash of the set that decides the first of them (genesis: of the genesis set).
    Raises ``Rejected``: ``header_not_next``, ``header_parent_differs``, ``validators_not_announced``, and as
    `verify_light_block`.
    """
    for block in blocks:
        header = block.header
        if header.height != parent.height + 1:
            raise Rejected("header_not_next", f"height {header.height} after {parent.height}")
        if header.parent_id != parent.block_id:
            raise Rejected("header_parent_differs", f"height {header.height}")
        if header.validators_hash != validators_hash:
            raise Rejected("validators_not_announced", f"height {header.height}")
        verify_light_block(block, context)
        parent, validators_hash = header, header.next_validators_hash
    return parent
