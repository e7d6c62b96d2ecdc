"""The puppets: Byzantine validators without a program of their own. The moves of the scenario are their words.

A puppet speaks when the first honest node enters the round, or, of a block not yet proposed, once it is. It sees all.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from consensus.messages import (
    VALID_ROUND_NONE,
    PolkaCertificate,
    PolkaSignature,
    Precommit,
    Prevote,
    Proposal,
    Vote,
)
from ledger.primitives import Hash, Height
from tests.consensus.harness import KEYS
from tests.simulator.byzantine import FORGED, Parcel
from tests.simulator.scenario import Kind, SayProposal, SayVote

if TYPE_CHECKING:
    from tests.simulator.arena import Arena

PROPOSE_AFTER_MS: Final = 5


class PuppetMaster:
    """Plays the moves of all puppets of one arena."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._height = Height(arena.scenario.first_height)
        self._made: dict[int, Hash] = {}  # made-up blocks by their negative number
        self._waiting: dict[int, list[SayVote | SayProposal]] = {}  # for the first proposal of a round
        self._moves: dict[int, list[SayVote | SayProposal]] = {}
        for move in arena.scenario.moves:
            if isinstance(move, SayVote | SayProposal):
                self._moves.setdefault(move.round, []).append(move)

    def play_round(self, round_: int) -> None:
        """The first honest node has entered a round; those below it are over."""
        for due in sorted(number for number in self._moves if number <= round_):
            for move in self._moves.pop(due):
                self._arena.plan(PROPOSE_AFTER_MS, partial(self._say, move))

    def play_proposal(self, round_: int) -> None:
        """A round's first block is known."""
        for move in self._waiting.pop(round_, []):
            self._say(move)

    def _say(self, move: SayVote | SayProposal) -> None:
        if self._arena.is_healed:
            return
        is_known, value = self._find_value(move)
        if not is_known:
            assert move.block is not None
            self._waiting.setdefault(move.block, []).append(move)
        elif isinstance(move, SayVote):
            self._say_vote(move, value)
        elif value is not None:
            self._propose(move, value)

    def _find_value(self, move: SayVote | SayProposal) -> tuple[bool, Hash | None]:
        block = move.block
        if block is None:
            return True, None
        if block >= 0:
            found = self._arena.first_proposed.get(self._height, {}).get(block)
            return found is not None, found
        if block not in self._made:
            is_bad = isinstance(move, SayProposal) and move.is_bad
            lead_ms = move.lead_ms if isinstance(move, SayProposal) else 0
            self._made[block], _ = self._arena.make_block(self._arena.now_ms + lead_ms, is_bad=is_bad)
        return True, self._made[block]

    def _say_vote(self, move: SayVote, value: Hash | None) -> None:
        valid_round = VALID_ROUND_NONE if value is None else min(move.valid_round, move.round - 1)
        vote: Vote = Precommit(self._height, move.round, value)
        if move.kind is Kind.PREVOTE:
            vote = Prevote(self._height, move.round, value, valid_round)
        self._arena.carry(move.by, move.by, Parcel(self._reach(move.to), self._arena.make_vote(move.by, vote)))

    def _propose(self, move: SayProposal, block_id: Hash) -> None:
        time_ms, _, body = self._arena.blocks[block_id]
        valid_round = min(move.valid_round, move.round - 1)
        proposal = Proposal(self._height, move.round, block_id, valid_round, time_ms)
        signed = self._arena.make_proposal(move.by, proposal)
        polka = None if valid_round == VALID_ROUND_NONE else self._find_polka(move, block_id, valid_round)
        self._arena.carry(move.by, move.by, Parcel(self._reach(move.to), signed, body, polka))

    def _find_polka(self, move: SayProposal, block_id: Hash, round_: int) -> PolkaCertificate | None:
        """All prevotes that were ever made for it; a forged one is filled up with signatures of nobody."""
        if move.polka == "none":
            return None
        signatures = {
            signed.voter: PolkaSignature(signed.voter, signed.vote.valid_round, signed.signature)
            for signed in self._arena.said
            if isinstance(signed.vote, Prevote) and (signed.vote.round, signed.vote.block_id) == (round_, block_id)
        }
        if move.polka == "forged":
            for key in KEYS[: self._arena.scenario.validators]:
                signatures.setdefault(key.public, PolkaSignature(key.public, VALID_ROUND_NONE, FORGED))
        return PolkaCertificate(self._height, round_, block_id, tuple(signatures.values()))

    def _reach(self, to: frozenset[int]) -> frozenset[int]:
        return to & frozenset(self._arena.by_number)
