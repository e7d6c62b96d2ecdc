"""Who voted for what, per round and kind; which values have a quorum; who voted twice.

Votes are counted per (sender, value): a sender's third vote that completes a quorum still counts (with two only, the
vote that decides can be lost), and a sender counts once per value. Memory is bounded against any f senders.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from consensus.codec import STATUS_VOTES_MAX
from consensus.messages import (
    Amnesia,
    ChainContext,
    CommitCertificate,
    CommitSignature,
    DuplicateVote,
    PolkaCertificate,
    PolkaSignature,
    Precommit,
    Prevote,
    SignedVote,
    Vote,
    VoteKind,
    VoteSummary,
    get_vote_kind,
)
from consensus.validators import ValidatorSet
from ledger.authorities import is_amnesia
from ledger.primitives import Hash, Height

ROUNDS_AHEAD_MAX: Final = 8  # votes of later rounds are kept for each sender's highest round only
EVIDENCE_MAX: Final = 256  # per height
FREE_VALUES_MAX: Final = 2  # values of one sender kept though nobody else voted for them

Value: TypeAlias = Hash | None  # None is nil
_Slot: TypeAlias = tuple[int, VoteKind]


@dataclass(slots=True)
class Tally:
    """The votes of one kind in one round. Bitmaps by validator index."""

    votes: dict[tuple[int, Value], SignedVote] = field(default_factory=dict)
    ticks: dict[tuple[int, Value], int] = field(default_factory=dict)  # when each vote came, in gossip ticks
    voters_by_value: dict[Value, int] = field(default_factory=dict)
    voters: int = 0  # who voted at all

    def find_first_of(self, index: int) -> SignedVote | None:
        """Any vote of this sender."""
        for value, voters in self.voters_by_value.items():
            if voters >> index & 1:
                return self.votes[index, value]
        return None

    def count_values_of(self, index: int) -> int:
        """For how many different values this sender voted."""
        return sum(voters >> index & 1 for voters in self.voters_by_value.values())


@dataclass(slots=True)
class _FarVotes:
    """The votes of one sender in its highest round, too far ahead to be tallied."""

    round: int
    votes: dict[VoteKind, SignedVote] = field(default_factory=dict)


def is_quorum(voters: int, validators: ValidatorSet) -> bool:
    """Whether the distinct senders in a bitmap are n − f or more."""
    return voters.bit_count() >= validators.quorum


def is_conflicting_vote_kept(tally: Tally, index: int, value: Value) -> bool:
    """Whether one more value of a sender is kept: the first two always, later ones if anybody else chose the value."""
    return tally.count_values_of(index) < FREE_VALUES_MAX or tally.voters_by_value.get(value, 0) != 0


def is_lock_ignored(precommit: Vote, prevote: Vote) -> bool:
    """Whether no honest node says both: the lock of the precommit forbids the prevote."""
    if not isinstance(precommit, Precommit) or not isinstance(prevote, Prevote):
        return False
    if precommit.block_id is None or prevote.block_id in {None, precommit.block_id}:
        return False
    return is_amnesia(
        precommit_round=precommit.round, prevote_round=prevote.round, prevote_valid_round=prevote.valid_round
    )


class VoteBook:
    """All votes of one height. Signatures are checked by the caller, before `add`; a vote in the book is verified."""

    __slots__ = ("_far", "_highest_rounds", "_quorums", "_tallies", "amnesia", "evidence", "skip_round", "validators")

    def __init__(self, validators: ValidatorSet) -> None:
        self.validators = validators
        self.evidence: dict[tuple[int, int, VoteKind], DuplicateVote] = {}
        self.amnesia: dict[int, Amnesia] = {}  # by sender; one is enough
        self.skip_round = -1  # the highest round that f + 1 distinct senders have reached
        self._tallies: dict[_Slot, Tally] = {}
        self._quorums: dict[_Slot, list[Value]] = {}
        self._highest_rounds = [-1] * len(validators)
        self._far: dict[int, _FarVotes] = {}

    def is_empty(self) -> bool:
        """Whether no vote has come yet."""
        return not self._tallies and not self._far

    def is_known(self, index: int, signed: SignedVote) -> bool:
        """Whether exactly this vote is held already."""
        vote = signed.vote
        kind = get_vote_kind(vote)
        tally = self._tallies.get((vote.round, kind))
        if tally is not None and tally.votes.get((index, vote.block_id)) == signed:
            return True
        far = self._far.get(index)
        return far is not None and far.votes.get(kind) == signed

    def add(self, index: int, signed: SignedVote, *, current_round: int, tick: int) -> DuplicateVote | Amnesia | None:
        """Count a verified vote. Returns evidence if it is the first to conflict in its round and kind, or a lock."""
        vote = signed.vote
        kind = get_vote_kind(vote)
        self.note_round(index, vote.round)
        if vote.round > current_round + ROUNDS_AHEAD_MAX:
            self._add_far(index, signed)
            return None
        tally = self._tallies.get((vote.round, kind))
        if tally is None:
            tally = self._tallies[vote.round, kind] = Tally()
        found = self._find_conflict(tally, index, signed)
        if (index, vote.block_id) in tally.votes:
            return found  # the same value with another valid_round proves a fault, and counts no second time
        if tally.voters >> index & 1 and not is_conflicting_vote_kept(tally, index, vote.block_id):
            return found
        tally.votes[index, vote.block_id] = signed
        tally.ticks[index, vote.block_id] = tick
        tally.voters |= 1 << index
        voters = tally.voters_by_value.get(vote.block_id, 0) | 1 << index
        tally.voters_by_value[vote.block_id] = voters
        if is_quorum(voters, self.validators):
            values = self._quorums.setdefault((vote.round, kind), [])
            if vote.block_id not in values:
                values.append(vote.block_id)
        return found or self._find_amnesia(index, signed)

    def _find_amnesia(self, index: int, signed: SignedVote) -> Amnesia | None:
        """Whether a vote just counted and an earlier one of its sender prove that one of them ignores a lock."""
        if index in self.amnesia or signed.vote.block_id is None:
            return None
        other_kind = VoteKind.PRECOMMIT if isinstance(signed.vote, Prevote) else VoteKind.PREVOTE
        for (round_, kind), tally in self._tallies.items():
            if kind is not other_kind or round_ == signed.vote.round or not tally.voters >> index & 1:
                continue
            for (sender, _), other in tally.votes.items():
                pair = (other, signed) if kind is VoteKind.PRECOMMIT else (signed, other)
                if sender == index and is_lock_ignored(pair[0].vote, pair[1].vote):
                    self.amnesia[index] = Amnesia(*pair)
                    return self.amnesia[index]
        return None

    def _find_conflict(self, tally: Tally, index: int, signed: SignedVote) -> DuplicateVote | None:
        if not tally.voters >> index & 1:
            return None
        slot = (index, signed.vote.round, get_vote_kind(signed.vote))
        first = tally.votes.get((index, signed.vote.block_id)) or tally.find_first_of(index)
        assert first is not None
        if first.vote == signed.vote or slot in self.evidence or len(self.evidence) >= EVIDENCE_MAX:
            return None
        self.evidence[slot] = DuplicateVote(first, signed)
        return self.evidence[slot]

    def _add_far(self, index: int, signed: SignedVote) -> None:
        far = self._far.get(index)
        if far is None or far.round < signed.vote.round:
            far = self._far[index] = _FarVotes(signed.vote.round)
        if far.round == signed.vote.round:
            far.votes.setdefault(get_vote_kind(signed.vote), signed)

    def note_round(self, index: int, round_: int) -> None:
        """A message of this sender for this round was verified."""
        if round_ <= self._highest_rounds[index]:
            return
        self._highest_rounds[index] = round_
        if round_ > self.skip_round:
            # L55: with f + 1 senders at this round or above, one honest node has reached it.
            self.skip_round = sorted(self._highest_rounds, reverse=True)[self.validators.f]

    def has_heard(self, index: int) -> bool:
        """Whether any verified message of this sender has come in this height."""
        return self._highest_rounds[index] >= 0

    def take_near(self, current_round: int) -> list[tuple[int, SignedVote]]:
        """Take out the far votes that a new current round brings within reach, as (index, vote)."""
        near = [index for index, far in self._far.items() if far.round <= current_round + ROUNDS_AHEAD_MAX]
        return [(index, vote) for index in near for vote in self._far.pop(index).votes.values()]

    def has_quorum_for(self, round_: int, kind: VoteKind, value: Value) -> bool:
        """Whether n − f distinct senders voted for ``value``."""
        return value in self._quorums.get((round_, kind), ())

    def has_quorum_of_any(self, round_: int, kind: VoteKind) -> bool:
        """Whether n − f distinct senders voted at all."""
        tally = self._tallies.get((round_, kind))
        return tally is not None and is_quorum(tally.voters, self.validators)

    def find_quorum_block(self, round_: int, kind: VoteKind) -> Hash | None:
        """The block, not nil, that n − f distinct senders voted for."""
        return next((value for value in self._quorums.get((round_, kind), ()) if value is not None), None)

    def list_quorums(self, kind: VoteKind) -> list[tuple[int, Hash]]:
        """Every (round, block) with a quorum of this kind."""
        slots = self._quorums.items()
        return [(slot[0], value) for slot, values in slots if slot[1] is kind for value in values if value is not None]

    def count_voters(self, round_: int, kind: VoteKind, value: Value) -> int:
        """How many distinct senders voted for ``value``."""
        tally = self._tallies.get((round_, kind))
        return 0 if tally is None else tally.voters_by_value.get(value, 0).bit_count()

    def build_polka(self, height: Height, round_: int, block_id: Hash) -> PolkaCertificate:
        """The certificate of a quorum of prevotes, signers in the order of the set. The quorum must be there."""
        assert self.has_quorum_for(round_, VoteKind.PREVOTE, block_id)
        signatures = []
        for signed in self._list_votes_for(round_, VoteKind.PREVOTE, block_id):
            assert isinstance(signed.vote, Prevote)
            signatures.append(PolkaSignature(signed.voter, signed.vote.valid_round, signed.signature))
        return PolkaCertificate(height, round_, block_id, tuple(signatures))

    def build_commit(self, context: ChainContext, height: Height, round_: int, block_id: Hash) -> CommitCertificate:
        """The certificate of a quorum of precommits, signers in the order of the set. The quorum must be there."""
        assert self.has_quorum_for(round_, VoteKind.PRECOMMIT, block_id)
        votes = self._list_votes_for(round_, VoteKind.PRECOMMIT, block_id)
        signatures = tuple(CommitSignature(signed.voter, signed.signature) for signed in votes)
        return CommitCertificate(context.compute_hash(), height, round_, block_id, signatures)

    def _list_votes_for(self, round_: int, kind: VoteKind, value: Value) -> list[SignedVote]:
        tally = self._tallies[round_, kind]
        return [tally.votes[key] for key in sorted((i, v) for i, v in tally.votes if v == value)]

    def list_round(self, round_: int) -> tuple[SignedVote, ...]:
        """Every vote held of one round, prevotes first."""
        tallies = (self._tallies.get((round_, kind)) for kind in VoteKind)
        return tuple(vote for tally in tallies if tally is not None for vote in tally.votes.values())

    def summarize(self) -> tuple[VoteSummary, ...]:
        """What a status tells of the votes held: newest rounds first, up to the status's limit."""
        summaries: list[VoteSummary] = []
        for (round_, kind), tally in self._walk_down():
            for value, voters in tally.voters_by_value.items():
                if len(summaries) == STATUS_VOTES_MAX:
                    return tuple(summaries)
                summaries.append(VoteSummary(round_, kind, value, voters))
        return tuple(summaries)

    def list_unknown_to(
        self, summaries: Sequence[VoteSummary], *, before_tick: int, votes_max: int
    ) -> dict[int, list[SignedVote]]:
        """The votes, by round, that a peer with these summaries lacks; those just received are left out, as the
        peer will have been sent them by others. Newest rounds first."""
        held = {(summary.round, summary.kind, summary.block_id): summary.voters for summary in summaries}
        # A full summary tells nothing of the rounds below its last.
        least_round = summaries[-1].round if len(summaries) == STATUS_VOTES_MAX else 0
        unknown: dict[int, list[SignedVote]] = {}
        for (round_, kind), tally in self._walk_down():
            if round_ < least_round or votes_max <= 0:
                break
            for value, voters in tally.voters_by_value.items():
                lacking = voters & ~held.get((round_, kind, value), 0)
                for index in _walk_bits(lacking):
                    if tally.ticks[index, value] < before_tick and votes_max > 0:
                        unknown.setdefault(round_, []).append(tally.votes[index, value])
                        votes_max -= 1
        return unknown

    def _walk_down(self) -> Iterator[tuple[_Slot, Tally]]:
        for slot in sorted(self._tallies, reverse=True):
            yield slot, self._tallies[slot]


def _walk_bits(bitmap: int) -> Iterator[int]:
    while bitmap:
        lowest = bitmap & -bitmap
        yield lowest.bit_length() - 1
        bitmap ^= lowest
