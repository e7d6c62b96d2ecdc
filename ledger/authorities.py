"""What authorities sign, and the hash that names a set of them: the words that consensus and the rules share.

Owns the signed bytes of proposals and votes. Consensus signs and checks them; the rules check them again when two of
them are brought as evidence, so they are defined once, below both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from ledger.encoding import encode
from ledger.primitives import Hash, PublicKey, sha256

STATEMENT_VERSION: Final = 1  # of the signed bytes; the protocol version that governance activates is another

_PROPOSAL_TAG: Final = b"wattprint/proposal/1\0"
_PREVOTE_TAG: Final = b"wattprint/prevote/1\0"
_PRECOMMIT_TAG: Final = b"wattprint/precommit/1\0"
_VALIDATORS_TAG: Final = b"wattprint/validators/1\0"


class SignedChain(NamedTuple):
    """What every signed statement begins with, so that it means nothing on another chain."""

    chain_id: str
    genesis_hash: Hash
    version: int = STATEMENT_VERSION


def compute_proposal_bytes(
    chain: SignedChain, *, height: int, round_: int, block_id: Hash, valid_round: int, time_ms: int
) -> bytes:
    """What the proposer of a round signs."""
    return _PROPOSAL_TAG + encode((*chain, height, round_, block_id, valid_round, time_ms))


def compute_prevote_bytes(
    chain: SignedChain, *, height: int, round_: int, block_id: Hash | None, valid_round: int
) -> bytes:
    """What a prevote signs; ``block_id`` None is nil."""
    return _PREVOTE_TAG + encode((*chain, height, round_, block_id, valid_round))


def compute_precommit_bytes(chain: SignedChain, *, height: int, round_: int, block_id: Hash | None) -> bytes:
    """What a precommit signs; ``block_id`` None is nil."""
    return _PRECOMMIT_TAG + encode((*chain, height, round_, block_id))


def is_amnesia(*, precommit_round: int, prevote_round: int, prevote_valid_round: int) -> bool:
    """Whether a prevote forgets the lock of a precommit for another block, of one height and one validator.

    Who precommits a block is locked on it from that round on; only a polka of that round or a later one, which the
    prevote would name, lets it prevote another.
    """
    return prevote_valid_round < precommit_round < prevote_round


def compute_validators_hash(members: Iterable[tuple[PublicKey, str]]) -> Hash:
    """The hash of a set of validators, as (key, moniker) in the order of proposing; it stands in headers."""
    return sha256(_VALIDATORS_TAG + encode(list(members)))


def compute_quorum(count: int) -> int:
    """How many of ``count`` validators decide: n − ⌊(n−1)/3⌋, which is the least number above two thirds."""
    return count - (count - 1) // 3
