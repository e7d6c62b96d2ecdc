"""Turns what changed during one input into the journal's frames, so that all of it is durable before any is sent.

One state frame per input, however much was signed; a body and a polka are written once each.
"""

from __future__ import annotations

from typing import TypeAlias

from consensus.effects import Persist
from consensus.journal import BodyFrame, JournalFrame, JournalState, OwnMessage, StateFrame, encode_frame
from consensus.messages import PolkaCertificate, SignedProposal, Step
from consensus.round import HeightState
from ledger.primitives import Hash

_Values: TypeAlias = tuple[int, Hash | None, int, Hash | None]


class Recorder:
    """Remembers what the journal of this height holds already."""

    __slots__ = ("_blocks", "_is_empty", "_polkas", "_values")

    def __init__(self, state: HeightState, recorded: JournalState | None) -> None:
        self._is_empty = recorded is None
        self._values = _get_values(state)
        self._blocks: set[Hash] = set()
        self._polkas: set[tuple[int, Hash]] = set()
        if recorded is not None:
            self._blocks.update(frame.proposal.proposal.block_id for frame in recorded.blocks)
            self._polkas.update((polka.round, polka.block_id) for polka in recorded.polkas)

    def record(self, state: HeightState, new: tuple[OwnMessage, ...]) -> list[Persist]:
        """The frames to write, bodies first, or none if nothing that must last has changed."""
        values = _get_values(state)
        if not new and values == self._values:
            return []
        self._values = values
        frames: list[JournalFrame] = list(self._list_bodies(state, new))
        frames.append(
            StateFrame(
                height=state.height,
                round=state.round,
                step=min(state.step, Step.PRECOMMIT),  # a decision is known by its votes, not by our word
                locked_round=state.locked_round,
                locked_block=state.locked_block,
                valid_round=state.valid_round,
                valid_block=state.valid_block,
                signed=new,
                polkas=tuple(self._list_polkas(state)),
            )
        )
        return [self._persist(frame) for frame in frames]

    def _persist(self, frame: JournalFrame) -> Persist:
        is_first, self._is_empty = self._is_empty, False
        return Persist(encode_frame(frame), reset=is_first)

    def _list_bodies(self, state: HeightState, new: tuple[OwnMessage, ...]) -> list[BodyFrame]:
        proposed = [message.proposal.block_id for message in new if isinstance(message, SignedProposal)]
        frames = []
        for block_id in (state.locked_block, state.valid_block, *proposed):
            if block_id is not None and block_id not in self._blocks:
                self._blocks.add(block_id)
                frames.append(BodyFrame(state.blocks[block_id].signed, state.blocks[block_id].body))
        return frames

    def _list_polkas(self, state: HeightState) -> list[PolkaCertificate]:
        polkas = []
        for round_, block_id in ((state.locked_round, state.locked_block), (state.valid_round, state.valid_block)):
            if block_id is not None and (round_, block_id) not in self._polkas:
                self._polkas.add((round_, block_id))
                polkas.append(state.votes.build_polka(state.height, round_, block_id))
        return polkas


def _get_values(state: HeightState) -> _Values:
    return state.locked_round, state.locked_block, state.valid_round, state.valid_block
