"""``Cluster(seed)``: N real cores under one seed, with faults that a story or a generator orders.

Owns the nodes and what is observed of them. Checkers (`checkers.py`) judge; a story reads like its title.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from consensus.journal import StateFrame, decode_frame
from consensus.messages import ChainContext, Evidence, SignedProposal, SignedVote
from consensus.parameters import ConsensusParameters
from contracts_native.credits import IssueCredits, TransferCredits
from contracts_native.table import load_table
from ledger.genesis import GenesisDocument, GenesisParticipant, GenesisValidator, compute_genesis_hash
from ledger.parameters import Parameters
from ledger.primitives import Hash, PublicKey
from ledger.storage import MemoryStore
from ledger.transaction import Payload, make_body, sign_transaction
from node import chain_store
from node.core import Core
from node.core_config import CoreConfig
from node.effects import (
    Admission,
    Answer,
    Blame,
    Committed,
    Effect,
    EvidenceNoted,
    Feed,
    ForkSeen,
    Halt,
    Persist,
    Send,
    SendAll,
    SetGossipTimer,
    SetTimeout,
    WriteBlock,
)
from node.forks import Fork
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
from tests.simulator.attack import Attack
from tests.simulator.disk import SimulatedDisk
from tests.simulator.masks import Mask, Parcels
from tests.simulator.scenario import Corrupt
from tests.simulator.vote_log import VoteLog, decode_once
from tests.simulator.world import Faults, SimulatedNetwork, Timeline

START_MS: Final = 1_750_000_000_000
CHAIN_ID: Final = "simulated"
TICK_MS: Final = 1_000
ACCOUNTS: Final = 4
LIAR_DOWN_MS: Final = 1_000
PARAMETERS: Final = ConsensusParameters(
    propose_timeout_ms=1_000, vote_timeout_ms=500, block_interval_ms=200, heartbeat_ms=3_000
)


def make_key(name: str) -> SigningKey:
    """A key that a name determines."""
    return SigningKey.from_seed(name.encode().ljust(32, b"."))


@dataclass(slots=True)
class Observed:
    """What the checkers look at. Nodes go by their numbers."""

    commits: dict[tuple[int, int], Hash] = field(default_factory=dict)  # (node, height) → block id, at first commit
    commit_heights: list[tuple[int, int]] = field(default_factory=list)  # (node, height) in the order of happening
    decided_ms: dict[int, int] = field(default_factory=dict)  # height → when the first honest node had it
    sent: list[tuple[int, SignedProposal | SignedVote]] = field(default_factory=list)
    undurable: list[tuple[int, SignedProposal | SignedVote]] = field(default_factory=list)  # sent, not in the journal
    locks: list[tuple[int, int, int]] = field(default_factory=list)  # (node, height, locked round) as written
    blames: list[tuple[int, int, str]] = field(default_factory=list)  # (who, whom, reason)
    evidence: list[tuple[int, Evidence]] = field(default_factory=list)
    forks: list[tuple[int, Fork]] = field(default_factory=list)
    halts: list[tuple[int, str]] = field(default_factory=list)
    votes: VoteLog = field(default_factory=VoteLog)  # of honest nodes


class Node:
    """One simulated node: a core while it is up, and disks that survive. ``mask``: what makes it Byzantine."""

    def __init__(self, cluster: Cluster, number: int, key: SigningKey, store: MemoryStore, mask: Mask | None) -> None:
        self.number = number
        self.key = key
        self.store = store
        self.disk = SimulatedDisk(Random(f"disk {cluster.seed} {number}"))  # of the journal
        self.mask = mask
        self.effects_left: int | None = None  # until its power fails
        self.down_ms = 0  # how long it fails for
        self.starts_after_healing = 0
        self.core: Core | None = None
        self.table = load_table()  # the rules of the program that this node runs
        self.life = 0  # counts starts: timers of an earlier life are void
        self.admissions: list[Admission] = []
        self._cluster = cluster

    @property
    def is_honest(self) -> bool:
        """Whether it says what its program says."""
        return self.mask is None

    def start(self) -> None:
        """Start, or restart from disk."""
        assert self.core is None
        config = CoreConfig(own_key=self.key.public_key, sign=self.key.sign, consensus=PARAMETERS)
        kind = Core if self.mask is None else self.mask.get_core_type()
        frames = self.disk.read()
        self.core = kind(config, self.store, self.table, journal_frames=frames)
        if self.is_honest:
            self._cluster.observed.votes.note_started(self.number, frames)
        self.life += 1
        self.starts_after_healing += self._cluster.is_healed
        self.tell(Started())
        self.tick()

    def crash(self) -> None:
        """Lose everything that is not on disk."""
        self.disk.cut_power()
        self.core = None

    def lose_journal(self) -> None:
        """The journal is gone, as after a change of disks."""
        self.disk = SimulatedDisk(Random(f"new disk {self.number}"))

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
        """Tell the core, and perform what follows; the power may fail between any two effects."""
        queue = [input_]
        while queue and self.core is not None:
            effects = self.core.handle(queue.pop(0), self._cluster.get_clock_ms(self.number))
            if effects and self._cluster.attack is not None:
                self._cluster.attack.note_handled(self)
            for effect in effects:
                if self._is_power_cut():
                    self._cluster.crash(self.number, down_ms=self.down_ms)
                    return
                if not isinstance(effect, Persist):
                    self._sync_journal()  # frames that follow one another share one sync
                self._perform(effect, queue)
            self._sync_journal()

    def _sync_journal(self) -> None:
        for frame in self.disk.sync():
            self._cluster.note_written(self.number, frame)

    def _is_power_cut(self) -> bool:
        if self.effects_left is None:
            return False
        self.effects_left -= 1
        return self.effects_left < 0

    def block_id(self, height: int) -> Hash | None:
        """The id of the block that this node's disk holds at a height."""
        certificate = chain_store.find_certificate(self.store, height)
        return None if certificate is None else certificate.block_id

    @property
    def height(self) -> int:
        """The last height on this node's disk."""
        return chain_store.read_head_height(self.store)

    def claim_height(self) -> int:
        """What it tells of its height when it connects."""
        return self.height if self.mask is None else self.mask.claim_height(self.height)

    def _perform(self, effect: Effect, queue: list[Input]) -> None:
        cluster = self._cluster
        match effect:
            case Persist(frame, reset):
                self.disk.append(frame, reset=reset)
                if self.is_honest:
                    cluster.observed.votes.note_signed(self.number, frame)
            case WriteBlock(height, changes):
                self.store.write(changes)
                queue.insert(0, BlockWritten(height))
            case Send(peer, message):
                cluster.send(self.number, frozenset({cluster.find_number(peer)}), message)
            case SendAll(message):
                others = frozenset(other.number for other in cluster.nodes if other is not self)
                cluster.send(self.number, others, message)
            case SetTimeout(height, round_, step, delay_ms):
                self.later(delay_ms, TimeoutElapsed(height, round_, step))
            case SetGossipTimer(delay_ms):
                self.later(delay_ms, GossipDue())
            case Feed(input_):
                self.later(0, input_)
            case Answer(_, admissions):
                self.admissions.extend(admissions)
            case Committed(executed, certificate):
                key = (self.number, executed.block.header.height)
                cluster.observed.commits.setdefault(key, executed.block_id)
                cluster.observed.commit_heights.append(key)
                if self.is_honest:
                    cluster.observed.decided_ms.setdefault(key[1], cluster.timeline.now_ms)
                    cluster.observed.votes.note_decided(self.number, certificate)
            case Blame(peer, reason, item):
                cluster.observed.blames.append((self.number, cluster.find_number(peer), f"{reason}: {item}"))
            case EvidenceNoted(evidence):
                cluster.observed.evidence.append((self.number, evidence))
            case ForkSeen(fork, changes):
                self.store.write(changes)
                cluster.observed.forks.append((self.number, fork))
            case Halt(reason, item):
                cluster.observed.halts.append((self.number, f"{reason}: {item}"))
                # A liar that fell over its own lie is started again by its operator.
                cluster.crash(self.number, down_ms=None if self.is_honest else LIAR_DOWN_MS)
            case _:
                pass


class Cluster:
    """N nodes, one seed. The default faults are mild; ``faults`` and the partition may be changed at any time."""

    def __init__(
        self,
        validators: int = 4,
        seed: int = 0,
        *,
        followers: int = 0,
        corrupt: Iterable[Corrupt] = (),
        puppets: Collection[int] = (),
    ) -> None:
        """Genesis names the first ``validators`` nodes; the ``followers`` after them may be voted in.

        ``corrupt`` says which nodes are Byzantine, and in which ways; ``puppets`` are so once there is an ``attack``.
        """
        self.seed = seed
        self.random = Random(seed)
        self.timeline = Timeline(START_MS + 1_000)
        self.network = SimulatedNetwork(self.timeline, self.random, self._deliver)
        self.observed = Observed()
        self.replay = f"python -m tests.simulator --validators {validators} --seed {seed}"
        self.is_healed = False
        self.attack: Attack | None = None  # under way, or over
        self.clock_offsets_ms = [0] * (validators + followers)
        self.accounts = [make_key(f"account {i}") for i in range(ACCOUNTS)]
        self.genesis = self._make_genesis(validators)
        self.context = ChainContext(CHAIN_ID, compute_genesis_hash(self.genesis))
        self._salt = 0
        batch = chain_store.compute_genesis_batch(self.genesis, load_table())
        items = [(key, value) for key, value in batch.items() if value is not None]
        lies: dict[int, tuple[Corrupt, ...]] = {}
        for one in corrupt:
            lies[one.node] = (*lies.get(one.node, ()), one)
        lies.update({number: lies.get(number, ()) for number in puppets})
        masks = {number: Mask(self, number, of_one, is_puppet=number in puppets) for number, of_one in lies.items()}
        self.nodes = [
            Node(self, i, make_key(f"validator {i}"), MemoryStore(items), masks.get(i))
            for i in range(validators + followers)
        ]
        self._numbers = {node.key.public_key: node.number for node in self.nodes}
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            self._connect(node.number)

    def __getitem__(self, number: int) -> Node:
        return self.nodes[number]

    @property
    def honest(self) -> list[Node]:
        """The nodes that are not Byzantine."""
        return [node for node in self.nodes if node.is_honest]

    @property
    def guilty(self) -> set[int]:
        """The numbers of the Byzantine nodes."""
        return {node.number for node in self.nodes if not node.is_honest}

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
        """Everybody is up and reaches everybody, and no fault is left; the Byzantine stay what they are."""
        self.is_healed = True
        self.network.groups = None
        self.network.faults = Faults()
        for node in self.nodes:
            node.effects_left = None
            self.restart(node.number)

    def meet(self) -> None:
        """The parts of the network reach each other again, over new connections."""
        is_reachable = self.network.is_reachable
        apart = [(one, two) for one in self.nodes for two in self.nodes if not is_reachable(one.number, two.number)]
        self.network.groups = None
        for one, two in apart:
            if one.core is not None and two.core is not None:
                one.later(0, PeerDown(two.key.public_key))
                one.later(5, PeerUp(two.key.public_key, two.claim_height()))

    def crash(self, number: int, *, down_ms: int | None = None) -> None:
        """Cut the power of a node; after ``down_ms``, if given, it comes back by itself."""
        node = self.nodes[number]
        if node.core is None:
            return
        node.effects_left = None
        node.crash()
        for other in self.nodes:
            if other.core is not None:
                other.later(0, PeerDown(node.key.public_key))
        if down_ms is not None:
            self.timeline.plan(down_ms, lambda: self.restart(number))

    def restart(self, number: int) -> None:
        """Start a node from its disk, unless it is up."""
        if self.nodes[number].core is None:
            self.nodes[number].start()
            self._connect(number)

    def run_for(self, duration_ms: int) -> None:
        """Let virtual time pass."""
        self.timeline.run_until(self.timeline.now_ms + duration_ms)

    def run_until(self, *, height: int, within_ms: int = 60_000) -> None:
        """Until every reachable node that is up has decided a height; fails if it takes too long."""
        deadline_ms = self.timeline.now_ms + within_ms
        reached = self.timeline.run_until(deadline_ms, stop=lambda: self.have_all_reached(height))
        assert reached, f"seed {self.seed}: heights {[node.height for node in self.nodes]} after {within_ms} ms"

    def block_ids(self, *, height: int) -> set[Hash | None]:
        """The block ids that the nodes hold at a height; one element if all agree."""
        return {node.block_id(height) for node in self.nodes}

    def submit(self, number: int, payload: Payload, *, by: SigningKey) -> Admission | None:
        """Hand a signed transaction to a node; what it answers, or None if it is down."""
        node = self.nodes[number]
        if node.core is None:
            return None
        self._salt += 1
        body = make_body(
            chain_id=CHAIN_ID,
            payload=payload,
            sender=by.address,
            valid_until=node.core.header.height + 500,
            salt=self._salt.to_bytes(8, "big"),
        )
        answered = len(node.admissions)
        node.tell(Submitted(self._salt, (sign_transaction(body, [(by.public_key, by.sign)]),)))
        return node.admissions[answered] if len(node.admissions) > answered else None

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

    def send(self, sender: int, receivers: frozenset[int], message: PeerMessage) -> None:
        """Put a message on the network; what a Byzantine node sends in its place, if it is one."""
        self.note_sent(sender, message)
        mask = self.nodes[sender].mask
        self.carry(sender, [(receivers, message)] if mask is None else mask.twist(receivers, message))

    def carry(self, sender: int, parcels: Parcels) -> None:
        """Put on the network what really leaves a node."""
        for to, said in parcels:
            if self.attack is not None:
                self.attack.note_said(sender, said)
            for receiver in sorted(to):
                if self.attack is None or not self.attack.loses(sender, receiver, said):
                    self.network.send(sender, receiver, said)

    def note_sent(self, number: int, message: PeerMessage) -> None:
        """Let the checkers see what a node's program sends under its own signature."""
        raw = message.proposal if isinstance(message, ProposalMessage) else None
        raw = message.body if isinstance(message, ConsensusMessage) else raw
        signed = None if raw is None else decode_once(raw)
        if raw is None or not isinstance(signed, SignedProposal | SignedVote):
            return
        self.observed.sent.append((number, signed))
        key = signed.proposer if isinstance(signed, SignedProposal) else signed.voter
        node = self.nodes[number]
        if key != node.key.public_key:
            return  # passed on
        if node.is_honest and isinstance(signed, SignedVote):
            self.observed.votes.note_sent(number, signed)
        if not node.disk.holds(raw):
            self.observed.undurable.append((number, signed))

    def note_written(self, number: int, frame: bytes) -> None:
        """Let the checkers see what a node's journal says of its lock."""
        state = decode_frame(frame)
        if isinstance(state, StateFrame):
            self.observed.locks.append((number, state.height, state.locked_round))

    def have_all_reached(self, height: int) -> bool:
        """Whether the honest nodes that are up, and are in the largest group, have all decided a height."""
        up = [node for node in self.honest if node.core is not None]
        groups = self.network.groups
        if groups is not None:
            largest = max(groups, key=len)
            up = [node for node in up if node.number in largest]
        return bool(up) and all(node.height >= height for node in up)

    def _connect(self, number: int) -> None:
        for other in self.nodes:
            if other.number == number or other.core is None:
                continue
            node = self.nodes[number]
            node.later(5, PeerUp(other.key.public_key, other.claim_height()))
            other.later(5, PeerUp(node.key.public_key, node.claim_height()))

    def _deliver(self, sender: int, receiver: int, message: PeerMessage) -> None:
        node = self.nodes[receiver]
        if node.core is not None:
            if node.mask is not None:
                node.mask.hear(message)
            else:
                self.observed.votes.note_heard(receiver, message)
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
