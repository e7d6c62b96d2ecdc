"""Where a store of documents is: a directory of this machine, or the address of an IPFS daemon's API.

Owns how one text says which, for the configuration of a node and for the command line alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from node.documents.daemon import DaemonStore
from node.documents.embedded import EmbeddedStore
from node.documents.store import DocumentStore, StoreFailed

MULTIADDRESS_STARTS: Final = ("/ip4/", "/ip6/", "/dns/", "/dns4/", "/dns6/")


def open_store_at(place: str, *, base: Path, must_exist: bool = False) -> DocumentStore:
    """The store at a place; a directory is relative to ``base``, and is made unless it must exist already.

    Raises ``StoreFailed`` (``store_address_invalid``, ``store_absent``, ``store_directory_foreign`` …).
    """
    if not place:
        raise StoreFailed("store_address_invalid", "neither a directory nor an address")
    if place.startswith(MULTIADDRESS_STARTS):
        return DaemonStore(place)
    if must_exist and not (base / place).exists():
        raise StoreFailed("store_absent", f"{base / place} does not exist")
    return EmbeddedStore(base / place)
