"""Governance: how the authorities change their own number, the parameters and the version of the rules.

Owns proposals, votes and the rule at the end of each block that puts an approved change in force. An authority signs
with the key that it votes with in consensus, so no role and no freeze stands between it and its vote.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Final, cast

from contracts_native import members, recent_blocks
from contracts_native.evidence import VALIDATOR
from ledger.authorities import compute_quorum
from ledger.encoding import Plain
from ledger.errors import NotAdmitted, NotPermitted, Rejected, RuleViolated
from ledger.fields import Bounds, Length, from_plain, to_plain
from ledger.parameters import ZONE_PAIRS_MAX, Parameters, get_parameters, set_parameters
from ledger.primitives import Address, Hash, PublicKey, compute_address, format_address
from ledger.receipt import Event, event
from ledger.state import State
from ledger.tables import Table
from ledger.transaction import BlockContext, BlockEnd, Declaration, Payload, Transaction, TxContext, transaction
from ledger.validators import (
    PROTOCOL,
    VALIDATORS,
    VALIDATORS_MAX,
    Member,
    Moniker,
    ProtocolVersion,
    ValidatorRecord,
    get_protocol_version,
    set_validators,
)

CANDIDATE: Final = "candidate"  # an open proposal names its key as the validator to add
EFFECT_DELAY_BLOCKS: Final = 2  # from the approving block to the first one that the change is in force for
EFFECT_BLOCKS_MAX: Final = 1_000_000  # how far ahead a proposal may name its height
OPEN_PROPOSALS_MAX: Final = 16  # of one validator at a time
PARAMETER_CHANGES_MAX: Final = 16
READY_BLOCKS_MAX: Final = 100  # how far behind the head the block may be that it names
# Below these the chain could not take the transaction that takes the change back.
PARAMETER_FLOORS: Final = {"block_bytes_max": 1024 * 1024, "transaction_lifetime_blocks": 10}

ProposalId = Annotated[bytes, Length(16, 16)]
ZonePairs = Annotated[tuple[tuple[str, str], ...], Length(ZONE_PAIRS_MAX)]
Version = Annotated[int, Bounds(1, 2**31)]
Votes = Annotated[tuple[PublicKey, ...], Length(2 * VALIDATORS_MAX)]


class ProposalStatus(enum.StrEnum):
    """Where a proposal stands; nothing leaves any status but the first two."""

    OPEN = "open"
    SCHEDULED = "scheduled"
    IN_FORCE = "in_force"
    VOID = "void"  # approved, but no longer possible when its height came
    REJECTED = "rejected"
    LAPSED = "lapsed"


ITS_HEIGHT: Final = "its height"  # comes, which is no transaction
# (status, transaction) → the statuses that may follow. A vote is refused on what is not here; a candidate's readiness
# leaves a proposal that is not here as it is.
PROPOSAL_TRANSITIONS: Final[Mapping[tuple[ProposalStatus, str], frozenset[ProposalStatus]]] = {
    (ProposalStatus.OPEN, "governance.propose"): frozenset({ProposalStatus.OPEN, ProposalStatus.SCHEDULED}),
    (ProposalStatus.OPEN, "governance.vote"): frozenset(
        {ProposalStatus.OPEN, ProposalStatus.SCHEDULED, ProposalStatus.REJECTED}
    ),
    # Members that left may leave too many refusals among those who are in force.
    (ProposalStatus.OPEN, "governance.ready"): frozenset(
        {ProposalStatus.OPEN, ProposalStatus.SCHEDULED, ProposalStatus.REJECTED}
    ),
    (ProposalStatus.OPEN, ITS_HEIGHT): frozenset({ProposalStatus.LAPSED}),
    (ProposalStatus.SCHEDULED, ITS_HEIGHT): frozenset({ProposalStatus.IN_FORCE, ProposalStatus.VOID}),
}


@dataclass(frozen=True, slots=True)
class ParameterChange:
    """A parameter by its name, and its new value: ``zone_pairs`` for the parameter of that name, else ``value``."""

    name: str
    value: int | None
    zone_pairs: ZonePairs | None


ParameterChanges = Annotated[tuple[ParameterChange, ...], Length(PARAMETER_CHANGES_MAX)]


@dataclass(frozen=True, slots=True)
class Change:
    """What a proposal is about: exactly one of a member to add, a member to remove, parameters, a version."""

    add_validator: PublicKey | None
    moniker: Moniker | None
    remove_validator: PublicKey | None
    parameters: ParameterChanges
    protocol_version: Version | None

    @property
    def is_of_members(self) -> bool:
        """Whether it changes who the validators are."""
        return self.add_validator is not None or self.remove_validator is not None


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change on its way. Votes of validators that are no longer in force do not count."""

    proposer: PublicKey
    change: Change
    effective_height: int  # the first block that it is in force for
    proposed_height: int
    approvals: Votes
    refusals: Votes
    status: ProposalStatus
    reason: str  # why it is void


@dataclass(frozen=True, slots=True)
class Due:
    """A proposal, open or scheduled, waits for its height."""


PROPOSALS: Table[Proposal] = Table("gp", Proposal, missing="proposal_unknown")
AGENDA: Table[Due] = Table("ga", Due, missing="proposal_not_due")  # effective height ‖ proposal


@event("governance.proposed")
@dataclass(frozen=True, slots=True)
class ChangeProposed(Event):
    """A validator proposes a change, and approves it by that."""

    proposal: ProposalId
    proposer: PublicKey
    change: Change
    effective_height: int


@event("governance.voted")
@dataclass(frozen=True, slots=True)
class VoteCast(Event):
    """A validator has voted on a proposal."""

    proposal: ProposalId
    voter: PublicKey
    approves: bool


@event("governance.candidate_ready")
@dataclass(frozen=True, slots=True)
class CandidateReady(Event):
    """A candidate has shown that it follows the chain and signs."""

    candidate: PublicKey
    height: int


@event("governance.approved")
@dataclass(frozen=True, slots=True)
class ChangeApproved(Event):
    """A change is in force from a height on, unless it is no longer possible then."""

    proposal: ProposalId
    effective_height: int


@event("governance.rejected")
@dataclass(frozen=True, slots=True)
class ChangeRejected(Event):
    """Too many have refused: the proposal cannot be approved any more."""

    proposal: ProposalId


def is_for_authorities(declaration: Declaration) -> bool:
    """Whether a validator or a candidate signs this type of transaction, rather than a participant."""
    return not declaration.roles.isdisjoint({VALIDATOR, CANDIDATE})


def check_signers(state: State, tx: Transaction, declaration: Declaration) -> None:
    """The one signer is a validator in force, or a candidate, and signs with that very key.

    Raises ``NotAdmitted`` (``signing_key_not_in_force``) or ``NotPermitted`` (``cosigner_not_expected``,
    ``signer_not_a_validator``, ``signer_not_a_candidate``).
    """
    if tx.cosigners:
        raise NotPermitted("cosigner_not_expected", format_address(tx.cosigners[0]))
    ((public_key, _),) = tx.signatures
    if compute_address(public_key) != tx.sender:
        raise NotAdmitted("signing_key_not_in_force", format_address(tx.sender))
    if VALIDATOR in declaration.roles and VALIDATORS.get(state).find_index(public_key) is None:
        raise NotPermitted("signer_not_a_validator", public_key.hex())
    if CANDIDATE in declaration.roles and not _list_proposals_to_add(state, tx.sender):
        raise NotPermitted("signer_not_a_candidate", public_key.hex())


def list_due(state: State) -> list[tuple[bytes, Proposal]]:
    """Proposals that are open or scheduled, with their ids, in the order of their heights."""
    cut = len(AGENDA.key(0))
    ids = [key[cut:] for key, _ in AGENDA.scan(state)]
    return [(proposal_id, PROPOSALS.get(state, proposal_id)) for proposal_id in ids]


def finish_block(state: State, end: BlockEnd) -> None:
    """The rule at the end of each block: what is due at the next height comes in force, or lapses."""
    recent_blocks.note_block(state, end)
    height = end.block.height + 1
    cut = len(AGENDA.key(height))
    for proposal_id in [key[cut:] for key, _ in AGENDA.scan(state, height)]:
        proposal = PROPOSALS.get(state, proposal_id)
        AGENDA.delete(state, height, proposal_id)
        if proposal.status is not ProposalStatus.SCHEDULED:
            _put(state, proposal_id, proposal, replace(proposal, status=ProposalStatus.LAPSED), ITS_HEIGHT)
            continue
        try:
            _put_in_force(state, proposal.change, height)
            done = replace(proposal, status=ProposalStatus.IN_FORCE)
        except Rejected as error:
            done = replace(proposal, status=ProposalStatus.VOID, reason=error.reason)
        _put(state, proposal_id, proposal, done, ITS_HEIGHT)


@transaction("governance.propose", roles=(VALIDATOR,))
@dataclass(frozen=True, slots=True)
class Propose(Payload):
    """Propose one change of validators, parameters or the protocol version, in force from a height on.

    A validator to add comes with its moniker. Who proposes a change approves it; the other validators vote.
    """

    add_validator: PublicKey | None
    moniker: Moniker | None
    remove_validator: PublicKey | None
    parameters: ParameterChanges
    protocol_version: Version | None
    effective_height: int

    def apply(self, state: State, tx: TxContext) -> None:
        change = Change(self.add_validator, self.moniker, self.remove_validator, self.parameters, self.protocol_version)
        _check_form(change)
        ahead = self.effective_height - tx.block.height
        if not EFFECT_DELAY_BLOCKS <= ahead <= EFFECT_BLOCKS_MAX:
            item = f"{ahead} blocks ahead, {EFFECT_DELAY_BLOCKS} … {EFFECT_BLOCKS_MAX} are possible"
            raise RuleViolated("effective_height_out_of_range", item)
        proposer = _get_signing_member(state, tx)
        if sum(proposal.proposer == proposer for _, proposal in list_due(state)) >= OPEN_PROPOSALS_MAX:
            raise RuleViolated("too_many_open_proposals", f"at most {OPEN_PROPOSALS_MAX} of one validator")
        _compute_effect(state, change)
        proposal_id = tx.make_id("proposal")
        proposal = Proposal(
            proposer,
            change,
            self.effective_height,
            tx.block.height,
            approvals=(proposer,),
            refusals=(),
            status=ProposalStatus.OPEN,
            reason="",
        )
        PROPOSALS.put(state, proposal_id, value=proposal)
        AGENDA.put(state, self.effective_height, proposal_id, value=Due())
        state.emit(ChangeProposed(proposal_id, proposer, change, self.effective_height))
        _settle(state, proposal_id, proposal, tx.block, "governance.propose")


@transaction("governance.vote", roles=(VALIDATOR,))
@dataclass(frozen=True, slots=True)
class Vote(Payload):
    """Vote on an open proposal, once; more than two thirds of the validators schedule it."""

    proposal: ProposalId
    approves: bool

    def apply(self, state: State, tx: TxContext) -> None:
        proposal = PROPOSALS.get(state, self.proposal)
        if (proposal.status, "governance.vote") not in PROPOSAL_TRANSITIONS:
            raise RuleViolated("proposal_not_open", f"{self.proposal.hex()} is {proposal.status}")
        voter = _get_signing_member(state, tx)
        if voter in (*proposal.approvals, *proposal.refusals):
            raise RuleViolated("vote_already_cast", voter.hex())
        if tx.block.height + EFFECT_DELAY_BLOCKS > proposal.effective_height:
            raise RuleViolated("voting_is_over", f"the change was to be in force from {proposal.effective_height} on")
        if self.approves:
            proposal = replace(proposal, approvals=(*proposal.approvals, voter))
        else:
            proposal = replace(proposal, refusals=(*proposal.refusals, voter))
        state.emit(VoteCast(self.proposal, voter, self.approves))
        _settle(state, self.proposal, proposal, tx.block, "governance.vote")


@transaction("governance.ready", roles=(CANDIDATE,))
@dataclass(frozen=True, slots=True)
class ShowReadiness(Payload):
    """Show, as a candidate, that one follows the chain and signs, by naming one of the last hundred blocks.

    The last block itself is not known to the rules yet; the one before it is.
    """

    height: int
    block_id: Hash

    def apply(self, state: State, tx: TxContext) -> None:
        if tx.block.height - self.height > READY_BLOCKS_MAX:
            raise RuleViolated("block_not_recent", f"height {self.height} at {tx.block.height}")
        if recent_blocks.find_block_id(state, self.height) != self.block_id:
            raise RuleViolated("block_not_of_this_chain", f"{self.block_id.hex()} at height {self.height}")
        waiting = _list_proposals_to_add(state, tx.sender)
        candidate = waiting[0][1].change.add_validator
        assert candidate is not None
        members.READY.put(state, candidate, value=members.Readiness(tx.time_ms))
        state.emit(CandidateReady(candidate, self.height))
        _settle_first(state, waiting, tx.block)


def _settle_first(state: State, waiting: list[tuple[bytes, Proposal]], block: BlockContext) -> None:
    """Settle proposals to add one candidate until it is to join: it joins once, the others stay as they are."""
    has_date = any(proposal.status is ProposalStatus.SCHEDULED for _, proposal in waiting)
    for proposal_id, proposal in waiting:
        if not has_date and block.height + EFFECT_DELAY_BLOCKS <= proposal.effective_height:
            after = _settle(state, proposal_id, proposal, block, "governance.ready")
            has_date = after.status is ProposalStatus.SCHEDULED


def _settle(state: State, proposal_id: bytes, before: Proposal, block: BlockContext, tag: str) -> Proposal:
    """Store a proposal, scheduled or rejected if the votes say so. Raises ``RuleViolated`` if it must not be approved.

    An approved candidate that has not shown its readiness stays open until it does.
    """
    proposal = before
    record = VALIDATORS.get(state)
    quorum = compute_quorum(len(record.members))
    approvals = sum(record.find_index(key) is not None for key in proposal.approvals)
    refusals = sum(record.find_index(key) is not None for key in proposal.refusals)
    candidate = proposal.change.add_validator
    if refusals > len(record.members) - quorum:
        proposal = replace(proposal, status=ProposalStatus.REJECTED)
        AGENDA.delete(state, proposal.effective_height, proposal_id)
        state.emit(ChangeRejected(proposal_id))
    elif approvals >= quorum and (candidate is None or members.is_ready(state, candidate, block.time_ms)):
        _check_one_at_a_time(state, proposal.change)
        _check_effect(state, proposal.change, block.height)
        proposal = replace(proposal, status=ProposalStatus.SCHEDULED)
        state.emit(ChangeApproved(proposal_id, proposal.effective_height))
    _put(state, proposal_id, before, proposal, tag)
    return proposal


def _put(state: State, proposal_id: bytes, before: Proposal, after: Proposal, tag: str) -> None:
    assert after.status in PROPOSAL_TRANSITIONS[before.status, tag], (before.status, tag, after.status)
    PROPOSALS.put(state, proposal_id, value=after)


def _check_form(change: Change) -> None:
    parts = (change.add_validator, change.remove_validator, change.parameters or None, change.protocol_version)
    if sum(part is not None for part in parts) != 1:
        raise RuleViolated("one_change_expected", "a validator to add or to remove, parameters, or a version")
    if (change.add_validator is None) != (change.moniker is None):
        raise RuleViolated("moniker_of_new_validator_expected", change.moniker or "")


def _check_one_at_a_time(state: State, change: Change) -> None:
    for proposal_id, other in list_due(state):
        if change.is_of_members and other.change.is_of_members and other.status is ProposalStatus.SCHEDULED:
            raise RuleViolated("member_change_already_scheduled", proposal_id.hex())


def _compute_effect(state: State, change: Change) -> tuple[Member, ...] | Parameters | ProtocolVersion:
    """What a change would put in the place of what is in force now. Raises ``Rejected`` if that must not be."""
    if change.add_validator is not None:
        return members.compute_with(state, Member(change.add_validator, change.moniker or ""))
    if change.remove_validator is not None:
        return members.compute_without(state, change.remove_validator)
    if change.protocol_version is None:
        return compute_parameters(get_parameters(state), change.parameters)
    if change.protocol_version <= get_protocol_version(state):
        raise RuleViolated("protocol_version_does_not_rise", change.protocol_version)
    return ProtocolVersion(change.protocol_version)


def _check_effect(state: State, change: Change, height: int) -> tuple[Member, ...] | Parameters | ProtocolVersion:
    effect = _compute_effect(state, change)
    if isinstance(effect, tuple):
        members.check_responsive(state, effect, height)
    return effect


def _put_in_force(state: State, change: Change, height: int) -> None:
    effect = _check_effect(state, change, height)
    match effect:
        case Parameters():
            set_parameters(state, effect, from_height=height)
        case ProtocolVersion():
            PROTOCOL.put(state, value=effect)
        case after:
            set_validators(state, ValidatorRecord(after), from_height=height)


def compute_parameters(parameters: Parameters, changes: tuple[ParameterChange, ...]) -> Parameters:
    """The parameters with these changed, each within the bounds of its field. Raises ``Rejected``."""
    values = dict(zip(Parameters.__slots__, cast("tuple[Plain, ...]", to_plain(parameters)), strict=True))
    if len({change.name for change in changes}) != len(changes):
        raise RuleViolated("parameter_named_twice", ", ".join(change.name for change in changes))
    for change in changes:
        if change.name not in values:
            raise RuleViolated("parameter_unknown", change.name)
        value: Plain = change.zone_pairs if change.name == "zone_pairs" else change.value
        if isinstance(value, int) and value < PARAMETER_FLOORS.get(change.name, value):
            raise RuleViolated("parameter_too_low", f"{change.name}: at least {PARAMETER_FLOORS[change.name]}")
        values[change.name] = value
    return from_plain(Parameters, tuple(values.values()))


def _list_proposals_to_add(state: State, candidate: Address) -> list[tuple[bytes, Proposal]]:
    """Proposals under way to add the validator whose key gives this address."""
    return [
        (proposal_id, proposal)
        for proposal_id, proposal in list_due(state)
        if proposal.change.add_validator is not None and compute_address(proposal.change.add_validator) == candidate
    ]


def _get_signing_member(state: State, tx: TxContext) -> PublicKey:
    """The key of the validator that signed: ``check_signers`` has found it in the set."""
    (key,) = (one.public_key for one in VALIDATORS.get(state).members if compute_address(one.public_key) == tx.sender)
    return key
