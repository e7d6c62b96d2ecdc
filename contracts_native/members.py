"""Which changes of the set of validators are safe to make.

Owns readiness of a candidate and responsiveness of a member. A member is responsive that proposed one of the blocks of
its last four turns: headers say who did, so nobody has to be believed and nothing more goes on chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from contracts_native.recent_blocks import RECENT_BLOCKS, list_proposers
from ledger.authorities import compute_quorum
from ledger.errors import RuleViolated
from ledger.primitives import PublicKey
from ledger.state import State
from ledger.tables import Table
from ledger.validators import VALIDATORS, VALIDATORS_MAX, Member, ValidatorRecord, find_validators_at

RESPONSIVE_TURNS: Final = 4
READY_MS_MAX: Final = 24 * 3_600_000  # how long a candidate's word that it is ready counts


@dataclass(frozen=True, slots=True)
class Readiness:
    """A candidate showed at this block time that it follows the chain and signs."""

    shown_ms: int


READY: Table[Readiness] = Table("gr", Readiness, missing="candidate_not_ready")


def is_ready(state: State, candidate: PublicKey, time_ms: int) -> bool:
    """Whether a candidate has lately shown that it follows the chain and signs."""
    readiness = READY.find(state, candidate)
    return readiness is not None and time_ms - readiness.shown_ms <= READY_MS_MAX


def compute_with(state: State, candidate: Member) -> tuple[Member, ...]:
    """The set with one member more, who proposes last. Raises ``RuleViolated``."""
    record = VALIDATORS.get(state)
    if record.find_index(candidate.public_key) is not None:
        raise RuleViolated("validator_already_in_force", candidate.public_key.hex())
    if len(record.members) >= VALIDATORS_MAX:
        raise RuleViolated("validators_too_many", f"at most {VALIDATORS_MAX}")
    return (*record.members, candidate)


def compute_without(state: State, leaving: PublicKey) -> tuple[Member, ...]:
    """The set with one member less. Raises ``RuleViolated``."""
    record = VALIDATORS.get(state)
    if record.find_index(leaving) is None:
        raise RuleViolated("validator_not_in_force", leaving.hex())
    if len(record.members) == 1:
        raise RuleViolated("last_validator_stays", leaving.hex())
    return tuple(member for member in record.members if member.public_key != leaving)


def check_responsive(state: State, after: tuple[Member, ...], height: int) -> None:
    """Enough of the new set are there to go on. A newcomer counts: its readiness is asked for elsewhere.

    Raises ``RuleViolated`` (``too_few_responsive_validators``).
    """
    silent = list_silent(state, VALIDATORS.get(state), height)
    responsive = sum(member.public_key not in silent for member in after)
    needed = compute_quorum(len(after))
    if responsive < needed:
        raise RuleViolated("too_few_responsive_validators", f"{responsive} of {len(after)}, {needed} needed")


def list_silent(state: State, record: ValidatorRecord, height: int) -> set[PublicKey]:
    """Members that had four turns before the block of ``height`` and let them all pass."""
    window = RESPONSIVE_TURNS * len(record.members)
    assert window <= RECENT_BLOCKS
    first = height - window
    before = find_validators_at(state, first) if first > 0 else None
    if before is None:
        return set()  # a young chain: not everybody has had so many turns
    proposers = list_proposers(state, from_height=first)
    return {
        member.public_key
        for member in record.members
        if member.public_key not in proposers and before.find_index(member.public_key) is not None
    }
