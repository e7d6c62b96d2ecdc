"""What was refused lately, so that a transaction that is sent again costs a hash and a look-up.

Owns the memory only. A refusal that no later block can change holds for everybody; one that a later block may change
holds for peers' copies and for some blocks, while whoever submits at the door is always judged anew.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from ledger.errors import Malformed, Rejected
from ledger.primitives import Hash, sha256

REFUSALS_MAX: Final = 20_000  # about 8 MB
ITEM_CHARACTERS_MAX: Final = 500  # of what a stranger may have named
REFUSED_BLOCKS: Final = 20  # for so many a peer's copy is not looked at again
FOR_EVER: Final = frozenset({"signature_invalid", "transaction_of_another_chain", "transaction_expired"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why, and of which transaction (None when the bytes did not decode); ``until_height`` None: for ever.

    An exception takes three times as much as its words, so it is made when it is asked for.
    """

    kind: type[Rejected]
    reason: str
    item: str
    tx_id: Hash | None
    until_height: int | None = None

    def restate(self) -> Rejected:
        """The same words, not raised yet."""
        return self.kind(self.reason, self.item)


def make_refusal(error: Rejected, tx_id: Hash | None, until_height: int | None = None) -> Refusal:
    """What is remembered of an error."""
    return Refusal(type(error), error.reason, error.item[:ITEM_CHARACTERS_MAX], tx_id, until_height)


def is_final(error: Rejected, tx_id: Hash | None) -> bool:
    """Whether no later block can change a refusal: bytes that do not decode (``tx_id`` None) never will."""
    return (tx_id is None and isinstance(error, Malformed)) or error.reason in FOR_EVER


class Refusals:
    """The last refusals by the hash of the bytes; the oldest is forgotten first, and once it holds no more."""

    def __init__(self) -> None:
        self._by_hash: OrderedDict[bytes, Refusal] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_hash)

    def find(self, raw: bytes, *, height: int, is_from_door: bool) -> Refusal | None:
        """Why these bytes need no second look while ``height`` is the last block, or None."""
        if not self._by_hash:
            return None
        refusal = self._by_hash.get(sha256(raw))
        if refusal is None or refusal.until_height is None:
            return refusal
        return None if is_from_door or height >= refusal.until_height else refusal

    def note(self, raw: bytes, error: Rejected, tx_id: Hash | None, *, height: int) -> None:
        """Remember a refusal after block ``height``."""
        until_height = None if is_final(error, tx_id) else height + REFUSED_BLOCKS
        self._by_hash[sha256(raw)] = make_refusal(error, tx_id, until_height)
        while len(self._by_hash) > REFUSALS_MAX or self._is_oldest_past(height):
            self._by_hash.popitem(last=False)

    def _is_oldest_past(self, height: int) -> bool:
        until_height = next(iter(self._by_hash.values())).until_height
        return until_height is not None and until_height <= height
