"""The journal cut at every byte, and damaged at every byte: the node comes back, and no slot is ever signed twice.

A validator votes in a simulated network while its frames go into a real journal. Then a core is started from every
possible remainder of that file, among peers who all lie and want it to say something else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final, TypeAlias

import pytest

from consensus.codec import decode_message, encode_message
from consensus.journal import StateFrame, decode_frame
from consensus.messages import (
    VALID_ROUND_NONE,
    ChainContext,
    Precommit,
    Prevote,
    Proposal,
    SignedProposal,
    SignedVote,
    Step,
    Vote,
    compute_signed_bytes,
)
from contracts_native.table import load_table
from ledger.errors import CorruptStore
from ledger.primitives import Height
from ledger.storage import MemoryStore
from node.core import Core
from node.core_config import CoreConfig
from node.effects import Effect, Feed, Halt, Persist, Send, SendAll
from node.inputs import Input, MessageReceived, Started, TimeoutElapsed
from node.journal import Journal, JournalCorrupt, parse_journal
from p2p.messages import ConsensusMessage, ProposalMessage
from tests.simulator.cluster import PARAMETERS, START_MS, Cluster, Node, make_key

HEIGHT: Final = Height(4)  # node 0 proposes it: its journal holds a proposal, a prevote, a polka and a precommit
VALIDATORS: Final = 4
LATER_MS: Final = START_MS + 600_000

Slot: TypeAlias = tuple[int, int, type]
Said: TypeAlias = dict[Slot, Proposal | Vote]


class TwicePerSlot(AssertionError):
    """Two payloads were signed for one (height, round, type)."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A validator in the middle of a height: its journal file, what each prefix of it had sent, and its store."""

    data: bytes
    record_ends: tuple[int, ...]
    frames: tuple[bytes, ...]  # the frame of each record
    first_of_height: int  # the index of the record that begins the height's journal
    store: MemoryStore

    def list_said(self, size: int) -> Said:
        """What had left the node when its journal was ``size`` bytes long: all that the whole records guard."""
        whole = [frame for frame, end in zip(self.frames, self.record_ends, strict=True) if end <= size]
        return note_all({}, (signed for frame in whole for signed in list_signed(frame)))


class JournalledNode(Node):
    """A simulated node whose frames also go into a real journal, one record each."""

    journal: Journal
    record_ends: list[int]
    written: list[bytes]
    resets: list[bool]

    def open_journal(self, path: Path) -> None:
        """From here on there is a journal on the disk."""
        self.journal, _ = Journal.open(path)
        self.record_ends, self.written, self.resets = [], [], []

    def _perform(self, effect: Effect, queue: list[Input]) -> None:
        super()._perform(effect, queue)
        if isinstance(effect, Persist):
            if effect.reset:
                self.journal.reset([effect.frame])
            else:
                self.journal.append(effect.frame)
                self.journal.sync()
            self.record_ends.append(self.journal.size_bytes())
            self.written.append(effect.frame)
            self.resets.append(effect.reset)


def note_all(said: Said, signed: Iterable[SignedProposal | SignedVote]) -> Said:
    """Adds what is said to what was said before. Raises ``TwicePerSlot``."""
    for one in signed:
        payload = one.proposal if isinstance(one, SignedProposal) else one.vote
        slot = (payload.height, payload.round, type(payload))
        if said.setdefault(slot, payload) != payload:
            raise TwicePerSlot(f"{said[slot]} and {payload}")
    return said


@cache
def list_signed(frame: bytes) -> tuple[SignedProposal | SignedVote, ...]:
    """What a journal's frame says was signed by us."""
    decoded = decode_frame(frame)
    return decoded.signed if isinstance(decoded, StateFrame) else ()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A validator that has proposed, prevoted and locked at ``HEIGHT``, and is cut off before it can decide."""
    net = Cluster(validators=VALIDATORS, seed=5)
    path = tmp_path_factory.mktemp("journal") / "journal"
    node = net[0]
    node.__class__ = JournalledNode
    assert isinstance(node, JournalledNode)
    node.open_journal(path)
    net.submit_something()

    def has_precommitted() -> bool:
        votes = [one.vote for frame in node.written[-1:] for one in list_signed(frame) if isinstance(one, SignedVote)]
        return any(isinstance(vote, Precommit) and vote.height == HEIGHT for vote in votes)

    assert net.timeline.run_until(net.timeline.now_ms + 60_000, stop=has_precommitted)
    node.journal.close()
    first = max(number for number, is_reset in enumerate(node.resets) if is_reset)
    assert node.height == HEIGHT - 1
    return Recorded(path.read_bytes(), tuple(node.record_ends), tuple(node.written), first, node.store)


class Restarted:
    """A core on a copy of the disk, and everything that leaves it after the journal's sync."""

    def __init__(self, recorded: Recorded, frames: list[bytes]) -> None:
        key = make_key("validator 0")
        config = CoreConfig(own_key=key.public_key, sign=key.sign, consensus=PARAMETERS)
        store = MemoryStore(recorded.store.scan(b"", b"\xff"))
        self.core = Core(config, store, load_table(), journal_frames=frames)
        self.sent: list[SignedProposal | SignedVote] = []

    def tell(self, input_: Input) -> None:
        """Tell the core, and whatever it feeds itself."""
        queue = [input_]
        while queue:
            for effect in self.core.handle(queue.pop(0), LATER_MS):
                assert not isinstance(effect, Halt), effect
                if isinstance(effect, Feed):
                    queue.append(effect.input)
                elif isinstance(effect, Send | SendAll):
                    self._note(effect)

    def _note(self, effect: Send | SendAll) -> None:
        match effect.message:
            case ProposalMessage(proposal, _, _):
                raw = proposal
            case ConsensusMessage(body):
                raw = body
            case _:
                return
        signed = decode_message(raw)
        if isinstance(signed, SignedProposal | SignedVote):
            self.sent.append(signed)


def restart_and_tempt(recorded: Recorded, frames: list[bytes]) -> list[SignedProposal | SignedVote]:
    """What a node says that starts from these frames, while all is done that makes an amnesiac contradict itself.

    It is its turn to propose, at another time than before; every timeout fires; the others all vote for nil.
    """
    node = Restarted(recorded, frames)
    node.tell(Started())
    node.tell(TimeoutElapsed(HEIGHT, 0, Step.NEW_HEIGHT))
    node.tell(TimeoutElapsed(HEIGHT, 0, Step.PROPOSE))
    for vote in (Prevote(HEIGHT, 0, None, VALID_ROUND_NONE), Precommit(HEIGHT, 0, None)):
        for number in range(1, VALIDATORS):
            node.tell(make_lie(node.core.context, number, vote))
        node.tell(TimeoutElapsed(HEIGHT, 0, Step.PREVOTE))
    return node.sent


@cache
def make_lie(context: ChainContext, number: int, vote: Vote) -> MessageReceived:
    """Another validator's vote, well signed, whatever it voted before."""
    key = make_key(f"validator {number}")
    signed = SignedVote(vote, key.public_key, key.sign(compute_signed_bytes(context, vote)))
    return MessageReceived(key.public_key, ConsensusMessage(encode_message(signed)))


def test_cut_at_every_byte_the_node_resumes_and_signs_nothing_twice(recorded: Recorded) -> None:
    resumed = 0
    for size in range(recorded.record_ends[recorded.first_of_height - 2], len(recorded.data) + 1):
        frames, end = parse_journal(recorded.data[:size], name="journal")
        assert end == max(known for known in recorded.record_ends if known <= size)
        sent = restart_and_tempt(recorded, frames)
        assert sent, "it resumed, and took part"
        note_all(recorded.list_said(size), sent)
        resumed += 1
    assert resumed > 1_000


def test_a_byte_changed_anywhere_stops_the_node_with_a_clear_word(recorded: Recorded) -> None:
    for place in range(len(recorded.data)):
        damaged = bytearray(recorded.data)
        damaged[place] ^= 0x41
        with pytest.raises(JournalCorrupt, match=r"^journal_(not_recognised|damaged_(in_middle|at_end)): journal"):
            parse_journal(bytes(damaged), name="journal")


def test_zeros_from_any_byte_on_resume_or_stop_and_never_sign_twice(recorded: Recorded) -> None:
    outcomes = set()
    for place in range(recorded.record_ends[-2], len(recorded.data)):
        # A power cut after the file grew: sectors that never arrived read as zeros.
        torn = recorded.data[:place].ljust(len(recorded.data), b"\0")
        try:
            frames, end = parse_journal(torn, name="journal")
        except JournalCorrupt as error:
            outcomes.add(error.reason)
            continue
        outcomes.add("resumed")
        note_all(recorded.list_said(end), restart_and_tempt(recorded, frames))
    assert outcomes <= {"resumed", "journal_damaged_at_end"}


def test_frames_that_are_no_frames_stop_the_core(recorded: Recorded) -> None:
    for frame in (b"", b"\x00", b"\x93\x01\x02\x03", recorded.frames[-1][:-1]):
        with pytest.raises(CorruptStore, match="journal_frame_invalid"):
            Restarted(recorded, [frame])


def test_a_journal_ahead_of_its_store_stops_the_core(recorded: Recorded) -> None:
    store = MemoryStore(Cluster(validators=VALIDATORS, seed=5)[0].store.scan(b"", b"\xff"))
    behind = replace(recorded, store=store)
    with pytest.raises(CorruptStore, match=r"journal is at height 4, the store only at 0"):
        Restarted(behind, list(recorded.frames[recorded.first_of_height :]))


@pytest.mark.parametrize("lost", ["all", "the last"])
def test_the_temptation_is_real_for_a_node_that_forgets(recorded: Recorded, lost: str) -> None:
    frames = [] if lost == "all" else list(recorded.frames[recorded.first_of_height : -1])
    with pytest.raises(TwicePerSlot):
        note_all(recorded.list_said(len(recorded.data)), restart_and_tempt(recorded, frames))
