"""``Cluster(seed)``: N real cores under one seed, with faults that a story or a generator orders.

Owns the nodes and what is observed of them. Checkers (`checkers.py`) judge; a story reads like its title.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Final

from consensus.codec import decode_message
from consensus.messages import SignedProposal, SignedVote
from consensus.parameters import ConsensusParameters
from contracts_native.credits import IssueCredits, TransferCredits
from contracts_native.table import load_table
from ledger.genesis import GenesisDocument, GenesisParticipant, GenesisValidator
from ledger.parameters import Parameters
from ledger.primitives import Hash, PublicKey
from ledger.storage import MemoryStore
from ledger.transaction import Payload, make_body, sign_transaction
from node import chain_store
from node.core import Core, CoreConfig
from node.effects import (
    Admission,
    Answer,
    Blame,
    Committed,
    Effect,
    EvidenceNoted,
    Feed,
    Halt,
    Persist,
    Send,
    SendAll,
    SetGossipTimer,
    SetTimeout,
    WriteBlock,
)
from node.inputs import (
    BlockWritten,
    GossipDue,
    Input,
    MessageReceived,
    PeerDown,
    PeerUp,
    Started,
    Submitted,
    Tick,
    TimeoutElapsed,
)
from node.keystore import SigningKey
from p2p.messages import ConsensusMessage, PeerMessage, ProposalMessage
from tests.simulator.world import Faults, SimulatedNetwork, Timeline

START_MS: Final = 1_750_000_000_000
CHAIN_ID: Final = "simulated"
TICK_MS: Final = 1_000
ACCOUNTS: Final = 4
PARAMETERS: Final = ConsensusParameters(
    propose_timeout_ms=1_000, vote_timeout_ms=500, block_interval_ms=200, heartbeat_ms=3_000
)


def make_key(name: str) -> SigningKey:
    """A key that a name determines."""
    return SigningKey.from_seed(name.encode().ljust(32, b"."))


@dataclass(slots=True)
class Observed:
    """What the checkers look at."""

    commits: dict[tuple[int, int], Hash] = field(default_factory=dict)  # (node, height) → block id, at first commit
    commit_heights: list[tuple[int, int]] = field(default_factory=list)  # (node, height) in the order of happening
    sent: list[tuple[int, SignedProposal | SignedVote]] = field(default_factory=list)
    blames: list[tuple[int, int, str]] = field(default_factory=list)  # (who, whom, reason)
    evidence: list[tuple[int, object]] = field(default_factory=list)
    halts: list[tuple[int, str]] = field(default_factory=list)


class Node:
    """One simulated node: a core while it is up, and a disk that survives."""

    def __init__(self, cluster: Cluster, number: int, key: SigningKey, store: MemoryStore) -> None:
        self.number = number
        self.key = key
        self.store = store
        self.frames: list[bytes] = []
        self.core: Core | None = None
        self.table = load_table()  # the rules of the program that this node runs
        self.life = 0  # counts starts: timers of an earlier life are void
        self.admissions: list[Admission] = []
        self._cluster = cluster

    def start(self) -> None:
        """Start, or restart from disk."""
        assert self.core is None
        config = CoreConfig(own_key=self.key.public_key, sign=self.key.sign, consensus=PARAMETERS)
        self.core = Core(config, self.store, self.table, journal_frames=list(self.frames))
        self.life += 1
        self.tell(Started())
        self.tick()

    def crash(self) -> None:
        """Lose everything that is not on disk."""
        self.core = None

    def tick(self) -> None:
        """The second-by-second tick of this life."""
        self.later(TICK_MS, Tick(), again=True)

    def later(self, delay_ms: int, input_: Input, *, again: bool = False) -> None:
        """Tell an input after a delay, if this life still lasts."""
        life = self.life

        def act() -> None:
            if self.core is not None and self.life == life:
                self.tell(input_)
                if again and self.core is not None:
                    self.later(delay_ms, input_, again=True)

        self._cluster.timeline.plan(delay_ms, act)

    def tell(self, input_: Input) -> None:
        """Tell the core, and perform what follows; a power cut may hit between any two effects."""
        queue = [input_]
        while queue and self.core is not None:
            effects = self.core.handle(queue.pop(0), self._cluster.get_clock_ms(self.number))
            for effect in effects:
                if self._cluster.is_power_cut():
                    self._cluster.crash(self.number)
                    return
                self._perform(effect, queue)

    def block_id(self, height: int) -> Hash | None:
        """The id of the block that this node's disk holds at a height."""
        certificate = chain_store.find_certificate(self.store, height)
        return None if certificate is None else certificate.block_id

    @property
    def height(self) -> int:
        """The last height on this node's disk."""
        return chain_store.read_head_height(self.store)

    def _perform(self, effect: Effect, queue: list[Input]) -> None:
        cluster = self._cluster
        match effect:
            case Persist(frame, reset):
                if reset:
                    self.frames = []
                self.frames.append(frame)
            case WriteBlock(height, changes):
                self.store.write(changes)
                queue.insert(0, BlockWritten(height))
            case Send(peer, message):
                cluster.send(self.number, cluster.find_number(peer), message)
            case SendAll(message):
                cluster.note_sent(self.number, message)
                for other in cluster.nodes:
                    if other is not self:
                        cluster.send(self.number, other.number, message)
            case SetTimeout(height, round_, step, delay_ms):
                self.later(delay_ms, TimeoutElapsed(height, round_, step))
            case SetGossipTimer(delay_ms):
                self.later(delay_ms, GossipDue())
            case Feed(input_):
                self.later(0, input_)
            case Answer(_, admissions):
                self.admissions.extend(admissions)
            case Committed(executed, _):
                key = (self.number, executed.block.header.height)
                cluster.observed.commits.setdefault(key, executed.block_id)
                cluster.observed.commit_heights.append(key)
            case Blame(peer, reason, item):
                cluster.observed.blames.append((self.number, cluster.find_number(peer), f"{reason}: {item}"))
            case EvidenceNoted(evidence):
                cluster.observed.evidence.append((self.number, evidence))
            case Halt(reason, item):
                cluster.observed.halts.append((self.number, f"{reason}: {item}"))
                cluster.crash(self.number)
            case _:
                pass


class Cluster:
    """N nodes, one seed. The default faults are mild; ``faults`` and the partition may be changed at any time."""

    def __init__(self, validators: int = 4, seed: int = 0, *, followers: int = 0) -> None:
        """Genesis names the first ``validators`` nodes; the ``followers`` after them may be voted in."""
        self.seed = seed
        self.random = Random(seed)
        self.timeline = Timeline(START_MS + 1_000)
        self.network = SimulatedNetwork(self.timeline, self.random, self._deliver)
        self.observed = Observed()
        self.power_cut_permille = 0
        self.down_ms_most = 2_000
        self.clock_offsets_ms = [0] * (validators + followers)
        self.accounts = [make_key(f"account {i}") for i in range(ACCOUNTS)]
        self.genesis = self._make_genesis(validators)
        self._salt = 0
        batch = chain_store.compute_genesis_batch(self.genesis, load_table())
        items = [(key, value) for key, value in batch.items() if value is not None]
        self.nodes = [
            Node(self, i, make_key(f"validator {i}"), MemoryStore(items)) for i in range(validators + followers)
        ]
        self._numbers = {node.key.public_key: node.number for node in self.nodes}
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            self._connect(node.number)

    def __getitem__(self, number: int) -> Node:
        return self.nodes[number]

    @property
    def faults(self) -> Faults:
        """How badly the network treats messages, from now on."""
        return self.network.faults

    def isolate(self, *numbers: int) -> None:
        """Cut each of these off from everybody."""
        rest = {node.number for node in self.nodes} - set(numbers)
        self.split(rest, *({number} for number in numbers))

    def split(self, *groups: set[int]) -> None:
        """Only nodes of one group reach each other."""
        self.network.groups = list(groups)

    def heal(self) -> None:
        """Everybody is up and reaches everybody, and no fault is left."""
        self.network.groups = None
        self.network.faults = Faults()
        self.power_cut_permille = 0
        for node in self.nodes:
            if node.core is None:
                self.restart(node.number)

    def crash(self, number: int) -> None:
        """Cut the power of a node; while power cuts are part of the weather, it comes back by itself."""
        if self.nodes[number].core is None:
            return
        self.nodes[number].crash()
        for other in self.nodes:
            if other.core is not None:
                other.later(0, PeerDown(self.nodes[number].key.public_key))
        if self.power_cut_permille:
            self.timeline.plan(self.random.randint(1, self.down_ms_most), lambda: self.restart(number))

    def restart(self, number: int) -> None:
        """Start a node from its disk."""
        if self.nodes[number].core is None:
            self.nodes[number].start()
            self._connect(number)

    def is_power_cut(self) -> bool:
        """Asked before every effect: whether the power fails right here."""
        # Drawn only when it can happen, so that calm stories of one seed stay the same.
        return self.power_cut_permille > 0 and self.random.randrange(10_000) < self.power_cut_permille

    def run_for(self, duration_ms: int) -> None:
        """Let virtual time pass."""
        self.timeline.run_until(self.timeline.now_ms + duration_ms)

    def run_until(self, *, height: int, within_ms: int = 60_000) -> None:
        """Until every reachable node that is up has decided a height; fails if it takes too long."""
        deadline_ms = self.timeline.now_ms + within_ms
        reached = self.timeline.run_until(deadline_ms, stop=lambda: self._have_all_reached(height))
        assert reached, f"seed {self.seed}: heights {[node.height for node in self.nodes]} after {within_ms} ms"

    def block_ids(self, *, height: int) -> set[Hash | None]:
        """The block ids that the nodes hold at a height; one element if all agree."""
        return {node.block_id(height) for node in self.nodes}

    def submit(self, number: int, payload: Payload, *, by: SigningKey) -> None:
        """Hand a signed transaction to a node, if it is up."""
        node = self.nodes[number]
        if node.core is None:
            return
        self._salt += 1
        body = make_body(
            chain_id=CHAIN_ID,
            payload=payload,
            sender=by.address,
            valid_until=node.core.header.height + 500,
            salt=self._salt.to_bytes(8, "big"),
        )
        node.tell(Submitted(self._salt, (sign_transaction(body, [(by.public_key, by.sign)]),)))

    def submit_something(self) -> None:
        """A random transfer, or an issue of credits, at a random node."""
        number = self.random.randrange(len(self.nodes))
        sender, recipient = self.random.sample(self.accounts, 2)
        if self.random.randrange(4) == 0:
            payload: Payload = IssueCredits(recipient.address, self.random.randint(1, 1_000), f"pay {self._salt}")
            self.submit(number, payload, by=self.accounts[0])
        else:
            payload = TransferCredits(recipient.address, self.random.randint(1, 300), "")
            self.submit(number, payload, by=sender)

    def get_clock_ms(self, number: int) -> int:
        """What a node's own clock shows."""
        return self.timeline.now_ms + self.clock_offsets_ms[number]

    def find_number(self, key: PublicKey) -> int:
        """The number of the node with a key."""
        return self._numbers[key]

    def send(self, sender: int, receiver: int, message: PeerMessage) -> None:
        """Put a message on the network."""
        self.note_sent(sender, message)
        self.network.send(sender, receiver, message)

    def note_sent(self, number: int, message: PeerMessage) -> None:
        """Let the checkers see what leaves a node under its own signature."""
        raw = message.proposal if isinstance(message, ProposalMessage) else None
        raw = message.body if isinstance(message, ConsensusMessage) else raw
        signed = None if raw is None else decode_message(raw)
        if isinstance(signed, SignedProposal | SignedVote):
            self.observed.sent.append((number, signed))

    def _have_all_reached(self, height: int) -> bool:
        up = [node for node in self.nodes if node.core is not None]
        groups = self.network.groups
        if groups is not None:
            largest = max(groups, key=len)
            up = [node for node in up if node.number in largest]
        return bool(up) and all(node.height >= height for node in up)

    def _connect(self, number: int) -> None:
        for other in self.nodes:
            if other.number == number or other.core is None:
                continue
            self.nodes[number].later(5, PeerUp(other.key.public_key, other.height))
            other.later(5, PeerUp(self.nodes[number].key.public_key, self.nodes[number].height))

    def _deliver(self, sender: int, receiver: int, message: PeerMessage) -> None:
        node = self.nodes[receiver]
        if node.core is not None:
            node.tell(MessageReceived(self.nodes[sender].key.public_key, message))

    def _make_genesis(self, validators: int) -> GenesisDocument:
        members = tuple(GenesisValidator(make_key(f"validator {i}").public_key, f"v{i}") for i in range(validators))
        people = tuple(
            GenesisParticipant(
                key.public_key,
                f"account {i}",
                ("utility", "consumer") if i == 0 else ("consumer",),
                credit_limit_cents=10**12 if i == 0 else 0,
            )
            for i, key in enumerate(self.accounts)
        )
        return GenesisDocument(CHAIN_ID, START_MS, members, people, Parameters())
