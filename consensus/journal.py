"""What must be on disk before anything is sent: the content of the journal's frames, and their replay. Pure.

One record serves both as the guard against signing twice and as the log that a restart resumes from, so the two
cannot disagree. A body is written once, a state frame adds what was signed since the one before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from consensus.codec import decode_message, encode_message
from consensus.messages import VALID_ROUND_NONE, Message, PolkaCertificate, SignedProposal, SignedVote, Step
from ledger.encoding import DECODE_BYTES_MAX, Plain, decode, encode
from ledger.errors import CorruptStore, Malformed
from ledger.primitives import Hash, Height

FRAME_BYTES_MAX: Final = DECODE_BYTES_MAX + 1024 * 1024  # the largest body with its proposal

_BODY_FRAME: Final = 1
_STATE_FRAME: Final = 2

OwnMessage: TypeAlias = SignedProposal | SignedVote


@dataclass(frozen=True, slots=True)
class BodyFrame:
    """A block that later state frames speak of, with a proposal that carried it."""

    proposal: SignedProposal
    body: bytes


@dataclass(frozen=True, slots=True)
class StateFrame:
    """Where the height stands; ``signed`` and ``polkas`` are those new since the frame before."""

    height: Height
    round: int
    step: Step
    locked_round: int
    locked_block: Hash | None
    valid_round: int
    valid_block: Hash | None
    signed: tuple[OwnMessage, ...]
    polkas: tuple[PolkaCertificate, ...]


JournalFrame: TypeAlias = BodyFrame | StateFrame


@dataclass(frozen=True, slots=True)
class JournalState:
    """What the frames of one height add up to; an engine is built from it after a restart."""

    height: Height
    round: int = 0
    step: Step = Step.NEW_HEIGHT
    locked_round: int = VALID_ROUND_NONE
    locked_block: Hash | None = None
    valid_round: int = VALID_ROUND_NONE
    valid_block: Hash | None = None
    signed: tuple[OwnMessage, ...] = ()
    polkas: tuple[PolkaCertificate, ...] = ()
    blocks: tuple[BodyFrame, ...] = ()


def encode_frame(frame: JournalFrame) -> bytes:
    """The canonical bytes of a frame."""
    if isinstance(frame, BodyFrame):
        return encode((_BODY_FRAME, encode_message(frame.proposal), frame.body))
    return encode(
        (
            _STATE_FRAME,
            frame.height,
            frame.round,
            int(frame.step),
            frame.locked_round,
            frame.locked_block,
            frame.valid_round,
            frame.valid_block,
            [encode_message(message) for message in frame.signed],
            [encode_message(polka) for polka in frame.polkas],
        )
    )


def decode_frame(data: bytes) -> JournalFrame:
    """The frame of canonical bytes. Raises ``CorruptStore``: we wrote it, so a fault is the disk's."""
    try:
        match decode(data, bytes_max=FRAME_BYTES_MAX):
            case (kind, bytes() as proposal, bytes() as body) if _read_integer(kind) == _BODY_FRAME:
                return BodyFrame(_read_proposal(proposal), body)
            case (kind, height, round_, step, *values, tuple() as signed, tuple() as polkas) if (
                _read_integer(kind) == _STATE_FRAME
            ):
                locked_round, locked_block, valid_round, valid_block = values
                return StateFrame(
                    Height(_read_integer(height)),
                    _read_integer(round_),
                    Step(_read_integer(step)),
                    *_read_value(locked_round, locked_block),
                    *_read_value(valid_round, valid_block),
                    tuple(_read_own(item) for item in signed),
                    tuple(_read_polka(item) for item in polkas),
                )
    except (Malformed, ValueError) as error:
        raise CorruptStore(f"journal_frame_invalid: {error}") from error
    raise CorruptStore(f"journal_frame_invalid: {data[:16].hex()}")


def replay(frames: Iterable[bytes]) -> JournalState | None:
    """The state that frames add up to, or None without any. Raises ``CorruptStore``.

    A body that the next state frame does not name was never spoken of: the crash came between the two, and what
    follows was written after the restart. Its proposal may be our own, signed and lost; said now, it would be a second.
    """
    state: JournalState | None = None
    bodies: list[BodyFrame] = []
    for data in frames:
        frame = decode_frame(data)
        height = frame.proposal.proposal.height if isinstance(frame, BodyFrame) else frame.height
        if state is None or height > state.height:
            state = JournalState(height)
            bodies.clear()
        elif height < state.height:
            raise CorruptStore(f"journal_height_goes_back: {height} after {state.height}")
        if isinstance(frame, BodyFrame):
            bodies.append(frame)
        else:
            state = _apply(state, frame, bodies)
            bodies.clear()
    return state


def _apply(state: JournalState, frame: StateFrame, bodies: Iterable[BodyFrame]) -> JournalState:
    proposed = [own.proposal.block_id for own in frame.signed if isinstance(own, SignedProposal)]
    named = {frame.locked_block, frame.valid_block, *proposed}
    return replace(
        state,
        round=frame.round,
        step=frame.step,
        locked_round=frame.locked_round,
        locked_block=frame.locked_block,
        valid_round=frame.valid_round,
        valid_block=frame.valid_block,
        signed=state.signed + frame.signed,
        polkas=state.polkas + frame.polkas,
        blocks=(*state.blocks, *(body for body in bodies if body.proposal.proposal.block_id in named)),
    )


def _read_integer(value: Plain) -> int:
    if type(value) is int:  # a truth value equals 0 or 1, and has other bytes
        return value
    raise ValueError("expected an integer")


def _read_value(round_: Plain, block_id: Plain) -> tuple[int, Hash | None]:
    if type(round_) is int and (block_id is None or type(block_id) is bytes):
        return round_, None if block_id is None else Hash(block_id)
    raise ValueError("a locked or valid value is a round and a block")


def _read_proposal(data: Plain) -> SignedProposal:
    match _read_message(data):
        case SignedProposal() as proposal:
            return proposal
    raise ValueError("a body frame opens with a proposal")


def _read_own(data: Plain) -> OwnMessage:
    match _read_message(data):
        case SignedProposal() | SignedVote() as message:
            return message
    raise ValueError("only proposals and votes are signed")


def _read_polka(data: Plain) -> PolkaCertificate:
    match _read_message(data):
        case PolkaCertificate() as polka:
            return polka
    raise ValueError("expected a polka certificate")


def _read_message(data: Plain) -> Message:
    match data:
        case bytes():
            return decode_message(data)
    raise ValueError("expected the bytes of a message")
