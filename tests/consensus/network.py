"""A bench for many engines: a network of queues on one virtual clock and one seed, with faults and power cuts.

Every message goes through its canonical bytes. The promises that must always hold are checked while a scenario runs:
agreement, one payload per slot and key, durable before sent, locks that never go back, times that rise.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Final, Self

from consensus.codec import decode_message, encode_message
from consensus.effects import (
    Broadcast,
    BuildBlock,
    CheckBlock,
    Decide,
    Effect,
    Halt,
    Persist,
    RequestCatchup,
    ScheduleTimeout,
    SendTo,
    ServeHeight,
)
from consensus.engine import Engine
from consensus.inputs import (
    BlockBuilt,
    BlockChecked,
    CertificateReceived,
    GossipTick,
    HeightStarted,
    Input,
    ProposalReceived,
    RequestReceived,
    StatusReceived,
    TimeoutElapsed,
    TransactionsAvailable,
    VoteReceived,
)
from consensus.journal import replay
from consensus.light_client import verify_commit
from consensus.messages import (
    BlockRequest,
    CommitCertificate,
    Message,
    PolkaCertificate,
    RoundCertificate,
    SignedProposal,
    SignedVote,
    Status,
    VoteRequest,
)
from consensus.parameters import ConsensusParameters
from ledger.encoding import decode, encode
from ledger.primitives import Hash, Height, PublicKey, sha256
from tests.consensus.harness import (
    BAD,
    CONTEXT,
    KEYS,
    START_MS,
    Notary,
    SafetyBroken,
    build_validators,
    list_journalled,
)

TICK_MS: Final = 1_000


@dataclass
class Node:
    """One engine of the network with its disk: the journal, and the blocks it has committed."""

    number: int
    engine: Engine
    frames: list[bytes] = field(default_factory=list)
    journalled: set[bytes] = field(default_factory=set)
    chain: list[Decide] = field(default_factory=list)  # chain[h - 1] decided height h
    is_up: bool = True
    epoch: int = 0  # counts restarts: timers of a former life are dead
    locked: tuple[int, int] = (0, -1)  # (height, locked round)

    @property
    def height(self) -> int:
        """The last height committed."""
        return len(self.chain)


@dataclass
class Faults:
    """What the network does wrong."""

    drop_percent: int = 0
    duplicate_percent: int = 0
    delay_ms_max: int = 40
    groups: tuple[frozenset[int], ...] = ()  # empty: everybody reaches everybody

    def connects(self, one: int, other: int) -> bool:
        return not self.groups or any(one in group and other in group for group in self.groups)


class Net:
    """``count`` validators and ``watchers`` more nodes, on one virtual clock."""

    def __init__(
        self,
        count: int = 4,
        *,
        seed: int = 0,
        watchers: int = 0,
        parameters: ConsensusParameters | None = None,
        busy: bool = True,
    ) -> None:
        self.random = Random(seed)
        self.validators = build_validators(count)
        self.parameters = parameters or ConsensusParameters()
        self.faults = Faults()
        self.busy = busy  # transactions always wait
        self.crash_percent = 0  # chance, at each input, of a crash in the midst of its effects
        self.effects_before_crash = -1  # node 0 crashes once it has performed so many
        self.now_ms = START_MS
        self.notary = Notary()
        self.decided: dict[int, Hash] = {}
        self.halted: list[Halt] = []
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self.nodes = [Node(number, self._build_engine(number, [])) for number in range(count + watchers)]
        for node in self.nodes:
            self._start_height(node)
            self._at(self.random.randrange(TICK_MS), partial(self._tick, node))

    def __getitem__(self, number: int) -> Node:
        return self.nodes[number]

    def _build_engine(self, number: int, frames: list[bytes]) -> Engine:
        if number >= len(self.validators):
            return Engine(CONTEXT, self.parameters)
        key = KEYS[number]
        return Engine(CONTEXT, self.parameters, own_key=key.public, sign=key.sign, journal=replay(frames))

    def _at(self, delay_ms: int, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._queue, (self.now_ms + delay_ms, self._order, action))

    def run(self, ms: int) -> Self:
        """Let virtual time pass."""
        end_ms = self.now_ms + ms
        while self._queue and self._queue[0][0] <= end_ms:
            self.now_ms, _, action = heapq.heappop(self._queue)
            action()
        self.now_ms = end_ms
        return self

    def run_until(self, height: int, *, nodes: Iterable[int] | None = None, within_ms: int = 300_000) -> Self:
        """Until these nodes, or all, have committed ``height``; fails if that takes longer."""
        waiting = [self.nodes[number] for number in (range(len(self.nodes)) if nodes is None else nodes)]
        end_ms = self.now_ms + within_ms
        while any(node.height < height for node in waiting):
            if self.now_ms >= end_ms:
                heights = [node.height for node in self.nodes]
                raise AssertionError(f"height {height} not reached within {within_ms} ms: {heights}")
            self.run(100)
        return self

    def split(self, *groups: Iterable[int]) -> Self:
        """Cut the network into groups."""
        self.faults.groups = tuple(frozenset(group) for group in groups)
        return self

    def heal(self) -> Self:
        """No faults any more, everybody up."""
        self.faults = Faults()
        self.crash_percent = 0
        for node in self.nodes:
            if not node.is_up:
                self.restart(node.number)
        return self

    def crash(self, number: int) -> Self:
        """Power off: what is not on disk is gone."""
        self.nodes[number].is_up = False
        self.nodes[number].epoch += 1
        return self

    def restart(self, number: int) -> Self:
        """Power on, with the journal and the committed blocks."""
        node = self.nodes[number]
        node.engine = self._build_engine(number, node.frames)
        node.is_up = True
        node.locked = (0, -1)
        self._start_height(node)
        return self

    def submit(self, *numbers: int) -> Self:
        """A transaction reaches these nodes."""
        for number in numbers:
            self.tell(self.nodes[number], TransactionsAvailable(self.now_ms))
        return self

    def _start_height(self, node: Node) -> None:
        parent_ms = _get_time_ms(node.chain[-1].body) if node.chain else START_MS - 60_000
        self.tell(node, HeightStarted(Height(node.height + 1), self.validators, self.now_ms, parent_ms))
        if self.busy and node.is_up:
            self.tell(node, TransactionsAvailable(self.now_ms))

    def _tick(self, node: Node) -> None:
        self._at(TICK_MS, partial(self._tick, node))
        if node.is_up:
            self.tell(node, GossipTick(self.now_ms))

    def tell(self, node: Node, input_: Input) -> None:
        """Hand one fact to a node and perform its effects; a crash may cut them short."""
        effects = node.engine.handle(input_)
        self._check_lock(node)
        cut = len(effects)
        if effects and self.random.randrange(100) < self.crash_percent:
            cut = self.random.randrange(len(effects) + 1)
        if node.number == 0 and 0 <= self.effects_before_crash <= len(effects):
            cut = self.effects_before_crash
        self.effects_before_crash -= len(effects) if node.number == 0 else 0
        for effect in effects[:cut]:
            self._perform(node, effect)
        if cut < len(effects):
            self.crash(node.number)
            self._at(self.random.randrange(5_000), partial(self._revive, node))

    def _revive(self, node: Node) -> None:
        if not node.is_up:
            self.restart(node.number)

    def _check_lock(self, node: Node) -> None:
        state = node.engine.state
        assert state is not None
        if node.locked[0] == state.height and state.locked_round < node.locked[1]:
            raise SafetyBroken("a lock went back")
        node.locked = (state.height, state.locked_round)

    def _perform(self, node: Node, effect: Effect) -> None:
        match effect:
            case Persist():
                self._persist(node, effect)
            case Broadcast(message, body, polka):
                for peer in self.nodes:
                    if peer is not node:
                        self._send(node, peer, message, body, polka)
            case SendTo(key, message, body, polka):
                self._send(node, self._find_node(key), message, body, polka)
            case ScheduleTimeout():
                fired = TimeoutElapsed(effect.height, effect.round, effect.step, self.now_ms + effect.delay_ms)
                self._later(node, effect.delay_ms, fired)
            case BuildBlock(height, round_, time_ms):
                body = encode((height, round_, node.number, time_ms, self.random.getrandbits(32)))
                self._later(node, 1, BlockBuilt(height, round_, sha256(body), time_ms, body))
            case CheckBlock():
                self._later(node, 1, BlockChecked(effect.block_id, not effect.body.startswith(BAD)))
            case Decide():
                self._commit(node, effect)
            case ServeHeight(key, height):
                self._serve(node, self._find_node(key), height)
            case RequestCatchup(key, _):
                peer = self._find_node(key)
                self._serve(peer, node, Height(node.height + 1))
            case Halt():
                self.halted.append(effect)
            case _:
                pass

    def _persist(self, node: Node, effect: Persist) -> None:
        if effect.reset:
            node.frames.clear()
        node.frames.append(effect.frame)
        node.journalled |= list_journalled([effect.frame])

    def _later(self, node: Node, delay_ms: int, input_: Input) -> None:
        epoch = node.epoch

        def act() -> None:
            if node.is_up and node.epoch == epoch:
                self.tell(node, input_)

        self._at(delay_ms, act)

    def _find_node(self, key: PublicKey) -> Node:
        return self.nodes[next(number for number, known in enumerate(KEYS) if known.public == key)]

    def _send(
        self, node: Node, peer: Node, message: Message, body: bytes | None, polka: PolkaCertificate | None
    ) -> None:
        data = encode_message(message)
        if self.notary.note_sent(KEYS[node.number].public, message) and data not in node.journalled:
            raise SafetyBroken("sent before it was durable")
        if self.random.randrange(100) < self.faults.drop_percent:
            return
        for _ in range(2 if self.random.randrange(100) < self.faults.duplicate_percent else 1):
            self._deliver(node, peer, data, body, polka)

    def _deliver(self, node: Node, peer: Node, data: bytes, body: bytes | None, polka: PolkaCertificate | None) -> None:
        def act() -> None:
            if peer.is_up and node.is_up and self.faults.connects(node.number, peer.number):
                input_ = to_input(decode_message(data), KEYS[node.number].public, body, polka, self.now_ms)
                if input_ is not None:
                    self.tell(peer, input_)

        self._at(self.random.randint(1, self.faults.delay_ms_max), act)

    def _serve(self, server: Node, peer: Node, height: Height) -> None:
        if not server.is_up or server.height < height or not self.faults.connects(server.number, peer.number):
            return
        decide = server.chain[height - 1]

        def act() -> None:
            if peer.is_up and peer.height == height - 1:
                verify_commit(decide.certificate, self.validators, CONTEXT)
                self._commit(peer, decide)

        self._at(self.random.randint(1, self.faults.delay_ms_max), act)

    def _commit(self, node: Node, decide: Decide) -> None:
        verify_commit(decide.certificate, self.validators, CONTEXT)
        if sha256(decide.body) != decide.block_id or decide.body.startswith(BAD):
            raise SafetyBroken("an invalid block was decided")
        if self.decided.setdefault(decide.height, decide.block_id) != decide.block_id:
            raise SafetyBroken(f"two blocks decided at height {decide.height}")
        if decide.height <= node.height:
            return  # a peer was faster to serve it
        assert decide.height == node.height + 1
        if node.chain and _get_time_ms(decide.body) <= _get_time_ms(node.chain[-1].body):
            raise SafetyBroken("block time does not rise")
        node.chain.append(decide)
        epoch = node.epoch

        def act() -> None:
            if node.is_up and node.epoch == epoch:
                self._start_height(node)

        self._at(0, act)


def _get_time_ms(body: bytes) -> int:
    plain = decode(body)
    assert isinstance(plain, tuple)
    assert isinstance(plain[3], int)
    return plain[3]


def to_input(
    message: Message, peer: PublicKey, body: bytes | None, polka: PolkaCertificate | None, now_ms: int
) -> Input | None:
    """The fact that a received message is."""
    match message:
        case SignedProposal():
            assert body is not None
            return ProposalReceived(message, body, polka, now_ms)
        case SignedVote():
            return VoteReceived(message, now_ms)
        case PolkaCertificate() | CommitCertificate() | RoundCertificate():
            return CertificateReceived(message, now_ms)
        case Status():
            return StatusReceived(peer, message, now_ms)
        case VoteRequest() | BlockRequest():
            return RequestReceived(peer, message, now_ms)
        case _:
            return None
