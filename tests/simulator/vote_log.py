"""Every vote that reached an honest whole node, and every one that it signed and sent, in the order of happening.

Owns the record only; `checkers.py` judges it. What reached a node is taken from the wire, and after a restart from its
journal, never from what its engine says it holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from typing import Final

from consensus.codec import decode_message
from consensus.journal import StateFrame, decode_frame
from consensus.messages import CommitCertificate, SignedVote, list_certificate_votes
from ledger.errors import Malformed
from p2p.messages import ConsensusMessage, PeerMessage, ProposalMessage
from tests.simulator.polkas import list_votes

MESSAGES_REMEMBERED: Final = 4_096  # those that are under way to several nodes

decode_once = lru_cache(maxsize=MESSAGES_REMEMBERED)(decode_message)  # one decoding for sender and receivers


class How(Enum):
    """How a node came to a vote."""

    HEARD = auto()  # it arrived, from whomever
    SIGNED = auto()  # in a frame for the journal, which a power cut may yet lose
    SENT = auto()  # its own; what it passes on it has heard
    DECIDED = auto()  # it has written the block of a height, with these precommits
    RESTORED = auto()  # it has just started, and its journal holds these; what it knew before is forgotten


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that happened to one node."""

    node: int
    how: How
    votes: tuple[SignedVote, ...]


class VoteLog:
    """The entries of one run. A node hears or signs a vote once in each of its lives: only the first time counts."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._noted: dict[tuple[int, How], set[SignedVote]] = {}

    def note_heard(self, node: int, message: PeerMessage) -> None:
        """A message has reached a node that is up."""
        match message:
            case ConsensusMessage(raw):
                self._note(node, How.HEARD, _read_votes(raw))
            case ProposalMessage(_, _, polka) if polka:
                self._note(node, How.HEARD, _read_votes(polka))
            case _:
                pass  # nothing else carries votes of a height that is under way

    def note_signed(self, node: int, frame: bytes) -> None:
        """A node's program orders this frame to be written."""
        state = decode_frame(frame)
        if isinstance(state, StateFrame):
            self._note(node, How.SIGNED, (own for own in state.signed if isinstance(own, SignedVote)))

    def note_sent(self, node: int, signed: SignedVote) -> None:
        """A node's program sends a vote of its own."""
        self._note(node, How.SENT, (signed,))

    def note_decided(self, node: int, certificate: CommitCertificate) -> None:
        """A node has a block, of its own rounds or from a peer."""
        self.entries.append(Entry(node, How.DECIDED, list_certificate_votes(certificate)))

    def note_started(self, node: int, frames: Iterable[bytes]) -> None:
        """A node's program has started, with these frames in its journal."""
        for how in (How.HEARD, How.SIGNED):  # what was signed, and lost before it was durable, is signed again
            self._noted.pop((node, how), None)
        states = [state for state in map(decode_frame, frames) if isinstance(state, StateFrame)]
        polkas = [vote for state in states for polka in state.polkas for vote in list_certificate_votes(polka)]
        own = [signed for state in states for signed in state.signed if isinstance(signed, SignedVote)]
        self.entries.append(Entry(node, How.RESTORED, (*polkas, *own)))

    def _note(self, node: int, how: How, votes: Iterable[SignedVote]) -> None:
        noted = self._noted.setdefault((node, how), set())
        new = tuple(vote for vote in votes if vote not in noted)
        if new:
            noted.update(new)
            self.entries.append(Entry(node, how, new))


def _read_votes(raw: bytes) -> tuple[SignedVote, ...]:
    try:
        return list_votes(decode_once(raw))
    except Malformed:
        return ()  # rubbish: the node blames its sender, and there is no vote in it
