"""Evidence: two statements of one authority that no honest one makes.

Owns what counts as an offence, and the record of it. The record punishes nobody: it is what validators read before they
propose a removal, since taking a member away also takes away fault tolerance.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated, Final

from contracts_native.recent_blocks import TIMES_KEPT_BLOCKS, find_time_ms
from ledger.authorities import (
    SignedChain,
    compute_precommit_bytes,
    compute_prevote_bytes,
    compute_proposal_bytes,
    is_amnesia,
)
from ledger.errors import RuleViolated
from ledger.fields import Bounds
from ledger.primitives import Hash, PublicKey, Signature, is_valid_ed25519
from ledger.receipt import Event, event
from ledger.state import State
from ledger.tables import Table
from ledger.transaction import BlockContext, Payload, TxContext, transaction
from ledger.validators import find_validators_at

VALIDATOR: Final = "validator"  # signs with the key that it votes with, under the address of that key
EVIDENCE_BLOCKS_MAX: Final = TIMES_KEPT_BLOCKS
EVIDENCE_AGE_MS_MAX: Final = 48 * 3_600_000
ROUND_MAX: Final = 2**31 - 1
NONE: Final = -1  # no valid round: a fresh proposal, or a statement that has none


class StatementKind(enum.StrEnum):
    """What an authority signs."""

    PROPOSAL = "proposal"
    PREVOTE = "prevote"
    PRECOMMIT = "precommit"


class OffenceKind(enum.StrEnum):
    """What two statements prove."""

    DUPLICATE_PROPOSAL = "duplicate_proposal"
    DUPLICATE_PREVOTE = "duplicate_prevote"
    DUPLICATE_PRECOMMIT = "duplicate_precommit"
    AMNESIA = "amnesia"


@dataclass(frozen=True, slots=True)
class Statement:
    """A signed statement. ``block_id`` null is nil; ``valid_round`` is −1 and ``time_ms`` 0 where it has none."""

    kind: StatementKind
    height: Annotated[int, Bounds(1, 2**53)]
    round: Annotated[int, Bounds(0, ROUND_MAX)]
    block_id: Hash | None
    valid_round: Annotated[int, Bounds(NONE, ROUND_MAX)]
    time_ms: Annotated[int, Bounds(0, 2**53)]
    signature: Signature

    def has_form(self) -> bool:
        """Whether nothing is said that this kind of statement does not say."""
        match self.kind:
            case StatementKind.PROPOSAL:
                return self.block_id is not None
            case StatementKind.PREVOTE:
                return self.time_ms == 0
            case StatementKind.PRECOMMIT:
                return self.time_ms == 0 and self.valid_round == NONE

    def compute_bytes(self, chain: SignedChain) -> bytes:
        """What was signed."""
        match self.kind:
            case StatementKind.PROPOSAL:
                assert self.block_id is not None, "the form was checked"
                return compute_proposal_bytes(
                    chain,
                    height=self.height,
                    round_=self.round,
                    block_id=self.block_id,
                    valid_round=self.valid_round,
                    time_ms=self.time_ms,
                )
            case StatementKind.PREVOTE:
                return compute_prevote_bytes(
                    chain,
                    height=self.height,
                    round_=self.round,
                    block_id=self.block_id,
                    valid_round=self.valid_round,
                )
            case StatementKind.PRECOMMIT:
                return compute_precommit_bytes(chain, height=self.height, round_=self.round, block_id=self.block_id)


@dataclass(frozen=True, slots=True)
class ChainName:
    """The genesis hash, which stands in everything that authorities sign."""

    genesis_hash: Hash


@dataclass(frozen=True, slots=True)
class Offence:
    """What was proven of a validator at a height: by which transaction, for which round (of the first statement)."""

    round: int
    tx_id: Hash
    recorded_height: int
    recorded_ms: int


CHAIN_NAME: Table[ChainName] = Table("gc", ChainName, missing="chain_name_missing")
OFFENCES: Table[Offence] = Table("go", Offence, missing="offence_unknown")  # offender ‖ height ‖ kind


@event("governance.offence_recorded")
@dataclass(frozen=True, slots=True)
class OffenceRecorded(Event):
    """A validator was proven to have broken the rules of consensus."""

    offender: PublicKey
    kind: OffenceKind
    height: int
    round: int


def found(state: State, genesis_hash: Hash) -> None:
    """Keep what signatures of this chain are bound to."""
    CHAIN_NAME.put(state, value=ChainName(genesis_hash))


def find_offence(first: Statement, second: Statement) -> OffenceKind | None:
    """What two statements of one authority prove together, the earlier round first; None if an honest one says both."""
    if first.height != second.height or not (first.has_form() and second.has_form()):
        return None
    if (first.kind, first.round) == (second.kind, second.round):
        said = [(one.block_id, one.valid_round, one.time_ms) for one in (first, second)]
        return OffenceKind(f"duplicate_{first.kind}") if said[0] != said[1] else None
    if (first.kind, second.kind) != (StatementKind.PRECOMMIT, StatementKind.PREVOTE):
        return None
    if first.block_id is None or second.block_id is None or first.block_id == second.block_id:
        return None
    forgot = is_amnesia(precommit_round=first.round, prevote_round=second.round, prevote_valid_round=second.valid_round)
    return OffenceKind.AMNESIA if forgot else None


def find_recorded(state: State, offender: PublicKey, height: int, kind: OffenceKind) -> Offence | None:
    """The record of an offence; one for each validator, height and kind."""
    return OFFENCES.find(state, offender, height, kind)


def check_age(state: State, height: int, block: BlockContext) -> None:
    """Evidence of a height is still taken. Raises ``RuleViolated`` (``evidence_too_old``, ``evidence_of_the_future``).

    Age by the clock counts from the next hundredth height; before that comes, evidence is fresh.
    """
    if height > block.height:
        raise RuleViolated("evidence_of_the_future", f"height {height} at {block.height}")
    time_ms = find_time_ms(state, height)
    age_ms = 0 if time_ms is None else block.time_ms - time_ms
    if block.height - height > EVIDENCE_BLOCKS_MAX or age_ms > EVIDENCE_AGE_MS_MAX:
        raise RuleViolated("evidence_too_old", f"height {height} at {block.height}, {age_ms} ms")


@transaction("governance.evidence", roles=(VALIDATOR,))
@dataclass(frozen=True, slots=True)
class ReportEvidence(Payload):
    """Put two statements of a validator on record that prove a breach; nodes submit this by themselves."""

    offender: PublicKey
    first: Statement
    second: Statement

    def apply(self, state: State, tx: TxContext) -> None:
        kind = find_offence(self.first, self.second)
        if kind is None:
            raise RuleViolated("statements_prove_nothing", self.offender.hex())
        height = self.first.height
        check_age(state, height, tx.block)
        members = find_validators_at(state, height)
        if members is None or members.find_index(self.offender) is None:
            raise RuleViolated("offender_not_a_validator", f"{self.offender.hex()} at height {height}")
        if find_recorded(state, self.offender, height, kind) is not None:
            raise RuleViolated("offence_already_recorded", f"{kind} of {self.offender.hex()} at height {height}")
        chain = SignedChain(tx.block.chain_id, CHAIN_NAME.get(state).genesis_hash)
        for statement in (self.first, self.second):
            if not is_valid_ed25519(self.offender, statement.compute_bytes(chain), statement.signature):
                raise RuleViolated("statement_signature_invalid", f"{statement.kind} of round {statement.round}")
        record = Offence(self.first.round, tx.tx_id, tx.block.height, tx.time_ms)
        OFFENCES.put(state, self.offender, height, kind, value=record)
        state.emit(OffenceRecorded(self.offender, kind, height, self.first.round))
