"""The puppets: Byzantine validators whose words are the moves of a scenario or a storm, whatever a program would say.

A puppet speaks when the first honest node enters the round, or, of a block not yet proposed, once it is. It sees all.
The world that it speaks in is its `Stage`: engines (`arena.py`) or whole nodes (`attack.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, Protocol

from consensus.messages import (
    VALID_ROUND_NONE,
    PolkaCertificate,
    PolkaSignature,
    Precommit,
    Prevote,
    Proposal,
    SignedProposal,
    SignedVote,
    Vote,
)
from ledger.primitives import Hash, Height, PublicKey
from tests.simulator.byzantine import FORGED, Parcel
from tests.simulator.scenario import Kind, SayProposal, SayVote

PROPOSE_AFTER_MS: Final = 5

Word = SayVote | SayProposal


class Stage(Protocol):
    """What a world shows to puppets, and lets them do."""

    first_proposed: dict[int, dict[int, Hash]]  # height → round → block
    said: list[SignedVote]  # every vote that any key ever signed and sent

    @property
    def is_healed(self) -> bool:
        """Whether the faults have ended."""

    def plan(self, delay_ms: int, action: Callable[[], None]) -> None:
        """Let something happen later."""

    def invent_block(self, by: int, *, lead_ms: int, is_bad: bool) -> Hash | None:
        """A block of a puppet, so far ahead of the clock; None if the height is over everywhere."""

    def get_block(self, block_id: Hash) -> tuple[int, bytes]:
        """The time and the body of a block that was proposed or invented."""

    def make_vote(self, by: int, vote: Vote) -> SignedVote:
        """Sign with a puppet's key."""

    def make_proposal(self, by: int, proposal: Proposal) -> SignedProposal:
        """Sign with a puppet's key."""

    def carry_word(self, by: int, parcel: Parcel) -> None:
        """Put what a puppet says on the network."""


class PuppetMaster:
    """Plays the moves of all puppets at one height. ``keys`` are those of its validators, in their order."""

    def __init__(self, stage: Stage, height: Height, moves: Iterable[object], keys: Sequence[PublicKey]) -> None:
        self._stage = stage
        self._height = height
        self._keys = keys
        self._made: dict[int, Hash] = {}  # made-up blocks by their negative number
        self._waiting: dict[int, list[Word]] = {}  # for the first proposal of a round
        self._moves: dict[int, list[Word]] = {}
        for move in moves:
            if isinstance(move, SayVote | SayProposal):
                self._moves.setdefault(move.round, []).append(move)

    def play_round(self, round_: int) -> None:
        """The first honest node has entered a round; those below it are over."""
        for due in sorted(number for number in self._moves if number <= round_):
            for move in self._moves.pop(due):
                self._stage.plan(PROPOSE_AFTER_MS, partial(self._say, move))

    def play_proposal(self, round_: int) -> None:
        """A round's first block is known."""
        for move in self._waiting.pop(round_, []):
            self._say(move)

    def _say(self, move: Word) -> None:
        if self._stage.is_healed:
            return
        value = None if move.block is None else self._find_block(move, move.block)
        if value is None and move.block is not None:
            if move.block >= 0:
                self._waiting.setdefault(move.block, []).append(move)
        elif isinstance(move, SayVote):
            self._say_vote(move, value)
        elif value is not None:
            self._propose(move, value)

    def _find_block(self, move: Word, number: int) -> Hash | None:
        if number >= 0:
            return self._stage.first_proposed.get(self._height, {}).get(number)
        if number not in self._made:
            is_bad = isinstance(move, SayProposal) and move.is_bad
            lead_ms = move.lead_ms if isinstance(move, SayProposal) else 0
            made = self._stage.invent_block(move.by, lead_ms=lead_ms, is_bad=is_bad)
            if made is None:
                return None
            self._made[number] = made
        return self._made[number]

    def _say_vote(self, move: SayVote, value: Hash | None) -> None:
        valid_round = VALID_ROUND_NONE if value is None else min(move.valid_round, move.round - 1)
        vote: Vote = Precommit(self._height, move.round, value)
        if move.kind is Kind.PREVOTE:
            vote = Prevote(self._height, move.round, value, valid_round)
        self._stage.carry_word(move.by, Parcel(move.to, self._stage.make_vote(move.by, vote)))

    def _propose(self, move: SayProposal, block_id: Hash) -> None:
        time_ms, body = self._stage.get_block(block_id)
        valid_round = min(move.valid_round, move.round - 1)
        proposal = Proposal(self._height, move.round, block_id, valid_round, time_ms)
        signed = self._stage.make_proposal(move.by, proposal)
        polka = None if valid_round == VALID_ROUND_NONE else self._find_polka(move, block_id, valid_round)
        self._stage.carry_word(move.by, Parcel(move.to, signed, body, polka))

    def _find_polka(self, move: SayProposal, block_id: Hash, round_: int) -> PolkaCertificate | None:
        """All prevotes that were ever made for it; a forged one is filled up with signatures of nobody."""
        if move.polka == "none":
            return None
        signatures = {
            signed.voter: PolkaSignature(signed.voter, signed.vote.valid_round, signed.signature)
            for signed in self._stage.said
            if isinstance(signed.vote, Prevote) and (signed.vote.round, signed.vote.block_id) == (round_, block_id)
        }
        if move.polka == "forged":
            for key in self._keys:
                signatures.setdefault(key, PolkaSignature(key, VALID_ROUND_NONE, FORGED))
        return PolkaCertificate(self._height, round_, block_id, tuple(signatures.values()))
