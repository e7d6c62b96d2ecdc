"""The model's council: who the validators are, what they vote on, what comes in force when. This makes it whole."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from contracts_native.governance import Propose
from tests.properties.model import Reasons, gather
from tests.properties.model_papers import Papers

DAY_MS: Final = 86_400_000
TURNS: Final = 4  # of each validator, within which it must have proposed a block
AHEAD_LEAST, AHEAD_MOST = 2, 1_000_000
OPEN_MOST: Final = 16
BLOCKS_BACK_MOST: Final = 100


@dataclass(eq=False)
class Proposed:
    """A change on its way."""

    proposer: bytes
    change: Propose
    approvals: set[bytes]
    refusals: set[bytes] = field(default_factory=set)
    status: str = "open"
    id: bytes = b""

    @property
    def height(self) -> int:
        return self.change.effective_height

    @property
    def is_due(self) -> bool:
        return self.status in ("open", "scheduled")

    @property
    def is_of_members(self) -> bool:
        return self.change.add_validator is not None or self.change.remove_validator is not None


@dataclass(eq=False)
class Model(Papers):
    """Everything. ``height``: of the last block; its transactions and the rule at its end are done."""

    height: int = 0
    validators: list[bytes] = field(default_factory=list)
    sets: list[tuple[int, list[bytes]]] = field(default_factory=list)  # from a height on
    proposers: dict[int, bytes] = field(default_factory=dict)  # height → who proposed the block
    version: int = 1
    proposals: list[Proposed] = field(default_factory=list)
    ready: dict[bytes, int] = field(default_factory=dict)  # candidate → when it showed that it is ready
    offences: set[tuple[bytes, int, str]] = field(default_factory=set)

    def set_validators(self, keys: list[bytes], from_height: int) -> None:
        self.validators = keys
        self.sets.append((from_height, keys))

    def list_validators_at(self, height: int) -> list[bytes]:
        return [keys for from_height, keys in self.sets if from_height <= height][-1]

    def is_quorum(self, count: int, of: int) -> bool:
        """More than two thirds."""
        return 3 * count > 2 * of

    def propose(self, sender: bytes, change: Propose) -> Reasons:
        parts = (change.add_validator, change.remove_validator, change.parameters or None, change.protocol_version)
        ahead = change.effective_height - (self.height + 1)
        mine = [one for one in self.proposals if one.proposer == sender and one.is_due]
        reasons = gather(
            (sender not in self.validators, "signer_not_a_validator"),
            (sum(part is not None for part in parts) != 1, "one_change_expected"),
            ((change.add_validator is None) != (change.moniker is None), "moniker_of_new_validator_expected"),
            (not AHEAD_LEAST <= ahead <= AHEAD_MOST, "effective_height_out_of_range"),
            (len(mine) >= OPEN_MOST, "too_many_open_proposals"),
        )
        reasons |= self._judge_change(change)
        proposed = Proposed(sender, change, {sender})
        if not reasons:
            reasons = self._judge_approval(proposed)
        if not reasons:
            self.proposals.append(proposed)
            self._settle(proposed)
        return reasons

    def _judge_change(self, change: Propose) -> Reasons:
        """Why it must not be, as things are now."""
        joins, leaves = change.add_validator, change.remove_validator
        low = {"block_bytes_max": 1024 * 1024, "transaction_lifetime_blocks": 10}
        reasons = gather(
            (joins is not None and joins in self.validators, "validator_already_in_force"),
            (leaves is not None and leaves not in self.validators, "validator_not_in_force"),
            (self.validators == [leaves], "last_validator_stays"),
            (
                change.protocol_version is not None and change.protocol_version <= self.version,
                "protocol_version_does_not_rise",
            ),
            (len({one.name for one in change.parameters}) != len(change.parameters), "parameter_named_twice"),
        )
        for one in change.parameters:
            reasons |= gather(
                (one.name == "no_such", "parameter_unknown"),
                (one.value is not None and one.value < low.get(one.name, 0), "parameter_too_low"),
            )
        return reasons

    def _list_after(self, change: Propose) -> list[bytes]:
        after = [key for key in self.validators if key != change.remove_validator]
        return after if change.add_validator is None else [*after, change.add_validator]

    def _judge_responsive(self, proposed: Proposed, height: int) -> Reasons:
        """Enough of those who will decide are there to go on."""
        if not proposed.is_of_members:
            return set()
        after = self._list_after(proposed.change)
        first = height - TURNS * len(self.validators)
        silent: set[bytes] = set()
        if first > 0:
            spoke = {who for at, who in self.proposers.items() if at >= first}
            silent = {one for one in self.validators if one not in spoke and one in self.list_validators_at(first)}
        there = [one for one in after if one not in silent]
        return gather((not self.is_quorum(len(there), len(after)), "too_few_responsive_validators"))

    def _is_approved(self, proposed: Proposed) -> bool:
        candidate = proposed.change.add_validator
        if candidate is not None and self.now_ms > self.ready.get(candidate, -DAY_MS - 1) + DAY_MS:
            return False
        approvals = proposed.approvals & set(self.validators)
        return self.is_quorum(len(approvals), len(self.validators))

    def _is_refused(self, proposed: Proposed) -> bool:
        """There are too few others left to approve it."""
        others = set(self.validators) - proposed.refusals
        return not self.is_quorum(len(others), len(self.validators))

    def _judge_approval(self, proposed: Proposed) -> Reasons:
        """Why it must not be approved now, if its votes say so."""
        if self._is_refused(proposed) or not self._is_approved(proposed):
            return set()
        others = [one for one in self.proposals if one.status == "scheduled" and one.is_of_members]
        reasons = gather((bool(others) and proposed.is_of_members, "member_change_already_scheduled"))
        return reasons | self._judge_change(proposed.change) | self._judge_responsive(proposed, self.height + 1)

    def _settle(self, proposed: Proposed) -> None:
        if self._is_refused(proposed):
            proposed.status = "rejected"
        elif self._is_approved(proposed):
            proposed.status = "scheduled"

    def vote(self, sender: bytes, proposed: Proposed, *, approves: bool) -> Reasons:
        reasons = gather(
            (sender not in self.validators, "signer_not_a_validator"),
            (proposed.status != "open", "proposal_not_open"),
            (sender in proposed.approvals | proposed.refusals, "vote_already_cast"),
            (proposed.height < self.height + 1 + AHEAD_LEAST, "voting_is_over"),
        )
        if reasons:
            return reasons
        votes = proposed.approvals if approves else proposed.refusals
        votes.add(sender)
        reasons = self._judge_approval(proposed)
        if reasons:
            votes.remove(sender)
        else:
            self._settle(proposed)
        return reasons

    def show_readiness(self, sender: bytes, height: int, *, is_right: bool) -> Reasons:
        """``is_right``: the block that is named is the one of this height."""
        about = [one for one in self.proposals if one.is_due and one.change.add_validator == sender]
        about.sort(key=lambda one: (one.height, one.id))
        reasons = gather(
            (not about, "signer_not_a_candidate"),
            (self.height + 1 - height > BLOCKS_BACK_MOST, "block_not_recent"),
            (not is_right or height >= self.height, "block_not_of_this_chain"),
        )
        if reasons:
            return reasons
        before = self.ready.get(sender)
        self.ready[sender] = self.now_ms
        statuses = [one.status for one in about]
        for one in about:
            is_in_time = one.height >= self.height + 1 + AHEAD_LEAST
            if is_in_time and not any(other.status == "scheduled" for other in about):
                reasons |= self._judge_approval(one)
                self._settle(one)
        if reasons:  # nothing of it happened
            for one, status in zip(about, statuses, strict=True):
                one.status = status
            del self.ready[sender]
            if before is not None:
                self.ready[sender] = before
        return reasons

    def report_offence(self, sender: bytes, offender: bytes, height: int, kind: str | None) -> Reasons:
        reasons = gather(
            (sender not in self.validators, "signer_not_a_validator"),
            (kind is None, "statements_prove_nothing"),
            (height > self.height + 1, "evidence_of_the_future"),
            (offender not in self.list_validators_at(height), "offender_not_a_validator"),
            ((offender, height, kind or "") in self.offences, "offence_already_recorded"),
        )
        if not reasons:
            self.offences.add((offender, height, kind or ""))
        return reasons

    def end_block(self, proposer: bytes) -> None:
        """What is due at the next height comes in force or does not."""
        self.height += 1
        self.proposers[self.height] = proposer
        due = [one for one in self.proposals if one.height == self.height + 1 and one.is_due]
        for one in sorted(due, key=lambda one: one.id):
            if one.status == "open":
                one.status = "lapsed"
            elif self._judge_change(one.change) | self._judge_responsive(one, self.height + 1):
                one.status = "void"
            else:
                one.status = "in_force"
                self._put_in_force(one.change)

    def _put_in_force(self, change: Propose) -> None:
        if change.add_validator is not None or change.remove_validator is not None:
            self.set_validators(self._list_after(change), self.height + 1)
        self.version = change.protocol_version or self.version
        for one in change.parameters:
            self._set_parameter(one.name, one.value or 0, one.zone_pairs or ())

    def _set_parameter(self, name: str, value: int, pairs: tuple[tuple[str, str], ...]) -> None:
        match name:
            case "lot_lifetime_s":
                self.lifetime_ms = value * 1_000
            case "matching_period_s":
                self.period_ms = value * 1_000
            case "escrow_silence_s":
                self.silence_ms = value * 1_000
            case "dispute_deadline_s":
                self.dispute_ms = value * 1_000
            case "reading_skew_s":
                self.skew_ms = value * 1_000
            case "reading_margin_percent":
                self.margin_percent = value
            case "zone_pairs":
                self.zone_pairs = frozenset(pairs)
            case _:
                raise AssertionError(f"the model does not know {name}")
