"""Where a store of documents is: a directory of this machine, or the address of an IPFS daemon's API.

Owns how one text says which, for the configuration of a node and for the command line alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from node.documents.daemon import DaemonStore
from node.documents.embedded import EmbeddedStore
from node.documents.store import DocumentStore

MULTIADDRESS_STARTS: Final = ("/ip4/", "/ip6/", "/dns/", "/dns4/", "/dns6/")


def open_store_at(place: str, *, base: Path) -> DocumentStore:
    """The store at a place; a directory is relative to ``base``, and is made. Raises ``StoreFailed``."""
    if place.startswith(MULTIADDRESS_STARTS):
        return DaemonStore(place)
    return EmbeddedStore(base / place)
