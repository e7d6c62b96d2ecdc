"""Plays one directed scenario: real engines, a virtual clock, a network that loses exactly what the moves say.

Fast on purpose: messages travel as objects, blocks are made up, signatures are hashes (`fast_signatures`). Whatever
happens is shown to the invariants. First the faults, then everything healed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random
from typing import Final

from consensus.codec import encode_message
from consensus.effects import (
    Broadcast,
    BuildBlock,
    CheckBlock,
    Decide,
    Effect,
    EvidenceFound,
    Halt,
    Persist,
    Refused,
    RequestCatchup,
    ScheduleTimeout,
    SendTo,
    ServeHeight,
)
from consensus.engine import Engine
from consensus.inputs import BlockBuilt, BlockChecked, GossipTick, HeightStarted, Input, TransactionsAvailable
from consensus.inputs import TimeoutElapsed as TimeoutFired
from consensus.journal import replay
from consensus.messages import (
    Message,
    Proposal,
    SignedProposal,
    SignedVote,
    Status,
    Step,
    Vote,
    compute_signed_bytes,
)
from consensus.parameters import ConsensusParameters
from ledger.primitives import Hash, Height, Signature, is_valid_ed25519, sha256
from tests.consensus.harness import BAD, CONTEXT, KEYS, START_MS, build_validators
from tests.consensus.network import to_input
from tests.simulator.byzantine import Bag, Parcel, twist
from tests.simulator.copies import HOOKS, Copy, Watcher, is_valid_fast, sign_fast
from tests.simulator.disk import SimulatedDisk
from tests.simulator.puppets import PuppetMaster
from tests.simulator.scenario import Behaviour, Corrupt, Crash, Losses, PowerCut, Scenario, Slow, Weather

TICK_MS: Final = 1_000
PARENT_AGE_MS: Final = 20_000
PARAMETERS: Final = ConsensusParameters()


class Arena:
    """The world of one scenario."""

    def __init__(self, scenario: Scenario, *, real_signatures: bool = False) -> None:
        self.scenario = scenario
        self.random = Random(scenario.seed)
        self.validators = build_validators(scenario.validators)
        self.now_ms = START_MS
        self.is_healed = False
        self.highest_round = -1
        self.end_height = scenario.first_height + scenario.heights - 1
        self.undecided = 0  # heights that honest copies still lack
        self.judges: list[Watcher] = []
        self.first_proposed: dict[int, dict[int, Hash]] = {}  # height → round → block
        self.blocks: dict[Hash, tuple[int, int, bytes]] = {}  # id → (block time, when it was made, body)
        self.said: list[SignedVote] = []  # every vote that any key ever signed and sent
        self._real = real_signatures
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self._losses = Losses(scenario.moves)
        self._slow: dict[tuple[int, int], int] = {}
        self._weather: Weather | None = None
        self._is_spoken: set[bytes] = set()
        self.has_slow_links = any(isinstance(move, Slow) for move in scenario.moves)
        self._watchers: dict[str, list[Watcher]] = {name: [] for name in HOOKS}
        self.copies = self._build_copies()
        for copy in self.copies:
            copy.others = frozenset(other.number for other in self.copies if other is not copy)
        self.undecided = scenario.heights * sum(copy.is_honest for copy in self.copies)
        self.by_number = {copy.number: copy for copy in self.copies}
        keys = [member.public_key for member in self.validators.members]
        self.puppets = PuppetMaster(self, Height(scenario.first_height), scenario.moves, keys)
        self._place_moves()

    def watch(self, *watchers: Watcher) -> None:
        """Show these what happens; each is asked only for what it overrides."""
        self.judges.extend(watchers)
        for name, listening in self._watchers.items():
            listening.extend(one for one in watchers if getattr(type(one), name) is not getattr(Watcher, name))

    # — building —

    def _build_copies(self) -> list[Copy]:
        scenario = self.scenario
        count = scenario.validators
        places = [(index, index) for index in range(count) if index not in scenario.puppets]
        places += [(count + order, index) for order, index in enumerate(scenario.twins)]
        offsets = scenario.clock_offsets_ms or (0,) * count
        copies = []
        for number, index in places:
            signed: set[Signature] = set()
            engine = self._build_engine(index, signed, [])
            is_honest = index not in scenario.faulty
            disk = SimulatedDisk(Random(f"disk {scenario.seed} {number}"))
            copies.append(Copy(number, index, KEYS[index].public, engine, is_honest, offsets[index], disk, signed))
        return copies

    def _build_engine(self, index: int, signed: set[Signature], frames: list[bytes]) -> Engine:
        def sign(data: bytes) -> Signature:
            signature = self._sign(index, data)
            signed.add(signature)
            return signature

        return Engine(CONTEXT, PARAMETERS, own_key=KEYS[index].public, sign=sign, journal=replay(frames))

    def _place_moves(self) -> None:
        for move in self.scenario.moves:
            match move:
                case Slow(sender, receiver, delay_ms):
                    self._slow[sender, receiver] = delay_ms
                case Weather(at_ms):
                    self.plan(at_ms, partial(self._change_weather, move))
                case PowerCut(at_ms, node, down_ms) if node in self.by_number:
                    self.plan(at_ms, partial(self._cut_power, self.by_number[node], down_ms))
                case Crash(node) if node in self.by_number:
                    self.by_number[node].crashes.append(move)
                case Corrupt(node) if node in self.by_number:
                    self.by_number[node].corrupt.append(move)
                case _:
                    pass  # a puppet's

    # — time —

    def plan(self, delay_ms: int, action: Callable[[], None]) -> None:
        """Let something happen later."""
        self._order += 1
        heapq.heappush(self._queue, (self.now_ms + delay_ms, self._order, action))

    def step(self, end_ms: int) -> bool:
        """Let the next thing happen; False if nothing does before ``end_ms``, which it then is."""
        if not self._queue or self._queue[0][0] > end_ms:
            self.now_ms = max(self.now_ms, end_ms)
            return False
        self.now_ms, _, action = heapq.heappop(self._queue)
        action()
        return True

    def start(self) -> None:
        """Everybody begins the first height."""
        for copy in self.copies:
            self._start_height(copy)
            if self.scenario.has_gossip:
                self.plan(self.random.randrange(TICK_MS), partial(self._tick, copy))

    def heal(self) -> None:
        """No message is lost from now on, no power fails, puppets are silent; slow links stay slow."""
        self.is_healed = True
        self._weather = None
        for copy in self.copies:
            copy.crashes.clear()
            if not copy.is_up:
                self._restart(copy)
            if not self.scenario.has_gossip:
                self.plan(self.random.randrange(TICK_MS), partial(self._tick, copy))

    def _change_weather(self, weather: Weather) -> None:
        if not self.is_healed:
            self._weather = weather

    def _tick(self, copy: Copy) -> None:
        self.plan(TICK_MS, partial(self._tick, copy))
        if copy.is_up:
            self.tell(copy, GossipTick(self._clock(copy)))

    def _clock(self, copy: Copy) -> int:
        return self.now_ms + copy.offset_ms

    def _start_height(self, copy: Copy) -> None:
        parent_ms = self.blocks[copy.chain[-1].block_id][0] if copy.chain else START_MS - PARENT_AGE_MS
        height = Height(self.scenario.first_height + len(copy.chain))
        copy.heard = [message for message in copy.heard if getattr(message, "height", height) >= height]
        self.tell(copy, HeightStarted(height, self.validators, self._clock(copy), parent_ms))
        if height <= self.end_height and copy.is_up:
            self.tell(copy, TransactionsAvailable(self._clock(copy)))

    # — power —

    def _cut_power(self, copy: Copy, down_ms: int) -> None:
        if copy.is_up and not self.is_healed:
            copy.disk.cut_power()
            copy.is_up = False
            copy.life += 1
            self.plan(down_ms, partial(self._restart, copy))

    def _restart(self, copy: Copy) -> None:
        if copy.is_up:
            return
        copy.restarts_after_healing += self.is_healed
        copy.engine = self._build_engine(copy.index, copy.signed, copy.disk.read())
        copy.is_up = True
        self._start_height(copy)

    # — inputs and effects —

    def tell(self, copy: Copy, input_: Input, *, sender: int | None = None) -> None:
        """Hand over one fact, perhaps from validator ``sender``, and perform what follows; a crash may cut it short."""
        effects = copy.engine.handle(input_)
        crash = self._find_crash(copy) if copy.crashes else None
        if crash is not None and effects:
            copy.crashes.remove(crash)
            for effect in effects[: crash.effects]:
                self._perform(copy, effect)
            self._cut_power(copy, crash.down_ms)
            return
        for effect in effects:
            self._perform(copy, effect)
            if sender is not None and isinstance(effect, Refused):
                for watcher in self._watchers["on_refused"]:
                    watcher.on_refused(sender, copy, effect)
        copy.disk.sync()
        for watcher in self._watchers["on_handled"]:
            watcher.on_handled(copy)
        state = copy.state
        if state.round <= self.highest_round or state.step is Step.NEW_HEIGHT:
            return
        if copy.is_honest and state.height == self.scenario.first_height:
            self.highest_round = state.round
            self.puppets.play_round(state.round)

    def _find_crash(self, copy: Copy) -> Crash | None:
        here = (copy.state.round, copy.state.step)
        return next((crash for crash in copy.crashes if here >= (crash.round, crash.step)), None)

    def _later(self, copy: Copy, delay_ms: int, make: Callable[[], Input]) -> None:
        life = copy.life

        def act() -> None:
            if copy.is_up and copy.life == life:
                self.tell(copy, make())

        self.plan(delay_ms, act)

    def _perform(self, copy: Copy, effect: Effect) -> None:
        if not isinstance(effect, Persist):
            copy.disk.sync()  # frames that follow one another share one sync
        match effect:
            case Broadcast(message, body, polka):
                self._send(copy, Parcel(copy.others, message, body, polka))
            case SendTo(peer, message, body, polka):
                to = frozenset(other.number for other in self.copies if other.key == peer and other is not copy)
                self._send(copy, Parcel(to, message, body, polka))
            case Persist(frame, reset):
                copy.disk.append(frame, reset=reset)
            case ScheduleTimeout(height, round_, step, delay_ms):
                self._later(copy, delay_ms, lambda: TimeoutFired(height, round_, step, self._clock(copy)))
            case BuildBlock(height, round_, time_ms):
                block_id, new_body = self.make_block(time_ms)
                self._later(copy, 1, lambda: BlockBuilt(height, round_, block_id, time_ms, new_body))
            case CheckBlock(_, block_id, _, body):
                self._later(copy, 1, lambda: BlockChecked(block_id, self._check(copy, body)))
            case Decide():
                self._commit(copy, effect)
            case ServeHeight(peer, height):
                for other in self.copies:
                    if other.key == peer:
                        self._serve(copy, other, height)
            case RequestCatchup(peer, _):
                for other in self.copies:
                    if other.key == peer:
                        self._serve(other, copy, Height(self.scenario.first_height + len(copy.chain)))
            case EvidenceFound():
                for watcher in self._watchers["on_evidence"]:
                    watcher.on_evidence(copy, effect)
            case Halt():
                for watcher in self._watchers["on_halt"]:
                    watcher.on_halt(copy, effect)
            case Refused():
                pass  # `tell` knows whose message it was

    def _check(self, copy: Copy, body: bytes) -> bool:
        is_good = not body.startswith(BAD)
        lies = any(
            move.behaviour is Behaviour.LIE_ABOUT_VALIDITY and self.random.randrange(100) < move.percent
            for move in copy.corrupt
        )
        return is_good != lies

    def make_block(self, time_ms: int, *, is_bad: bool = False) -> tuple[Hash, bytes]:
        """A new block with a time of its own."""
        body = b"%sblock %d at %d" % (BAD if is_bad else b"", len(self.blocks), time_ms)
        block_id = sha256(body)
        self.blocks[block_id] = (time_ms, self.now_ms, body)
        return block_id, body

    def invent_block(self, _by: int, *, lead_ms: int, is_bad: bool) -> Hash | None:
        """A block of a puppet, so far ahead of the clock."""
        return self.make_block(self.now_ms + lead_ms, is_bad=is_bad)[0]

    def get_block(self, block_id: Hash) -> tuple[int, bytes]:
        """The time and the body of a block."""
        time_ms, _, body = self.blocks[block_id]
        return time_ms, body

    def _commit(self, copy: Copy, decide: Decide) -> None:
        for watcher in self._watchers["on_decided"]:
            watcher.on_decided(copy, decide)
        if decide.height != self.scenario.first_height + len(copy.chain):
            return  # a peer was faster to serve it
        copy.chain.append(decide)
        self.undecided -= copy.is_honest and len(copy.chain) <= self.scenario.heights
        self.plan(0, partial(self._start_next_height, copy, copy.life, len(copy.chain)))

    def _start_next_height(self, copy: Copy, life: int, decided: int) -> None:
        if copy.is_up and (copy.life, len(copy.chain)) == (life, decided):  # else a peer has served one more already
            self._start_height(copy)

    def _serve(self, server: Copy, copy: Copy, height: Height) -> None:
        place = height - self.scenario.first_height
        if not (self.is_healed or self.scenario.has_gossip) or not 0 <= place < len(server.chain) or copy is server:
            return
        decide = server.chain[place]

        def act() -> None:
            if copy.is_up and len(copy.chain) == place:
                self._commit(copy, decide)

        self.plan(self._compute_delay(server.number, copy.number), act)

    # — messages —

    def make_vote(self, index: int, vote: Vote) -> SignedVote:
        """A vote signed by any validator, for those who are Byzantine."""
        return SignedVote(vote, KEYS[index].public, self._sign(index, compute_signed_bytes(CONTEXT, vote)))

    def make_proposal(self, index: int, proposal: Proposal) -> SignedProposal:
        """A proposal signed by any validator, for those who are Byzantine."""
        signature = self._sign(index, compute_signed_bytes(CONTEXT, proposal))
        return SignedProposal(proposal, KEYS[index].public, signature)

    def is_signed(self, signed: SignedVote) -> bool:
        """Whether its voter signed it, by a reckoning of our own."""
        data = compute_signed_bytes(CONTEXT, signed.vote)
        if self._real:
            return is_valid_ed25519(signed.voter, data, signed.signature)
        return is_valid_fast(signed.voter, data, signed.signature)

    def _sign(self, index: int, data: bytes) -> Signature:
        return KEYS[index].sign(data) if self._real else sign_fast(KEYS[index].public, data)

    def _send(self, copy: Copy, parcel: Parcel) -> None:
        if isinstance(parcel.message, Status) and not (self.is_healed or self.scenario.has_gossip):
            return
        for watcher in self._watchers["on_sent"]:
            watcher.on_sent(copy, parcel.message)
        if not copy.corrupt:
            self.carry(copy.number, copy.index, parcel)
            return
        for twisted in twist(self._build_bag(copy), copy.corrupt, parcel):
            self.carry(copy.number, copy.index, twisted)

    def carry(self, number: int, index: int, parcel: Parcel) -> None:
        """Put a parcel on the network; ``number`` sends it, for validator ``index``."""
        self._note_said(index, parcel)
        lost = () if self.is_healed or self._weather is not None else self._losses.list_links(parcel.message)
        for receiver in parcel.to:
            if any((number, receiver) in links for links in lost):
                continue
            copy = self.by_number[receiver]
            for _ in range(self._count_arrivals(number, receiver)):
                self.plan(self._compute_delay(number, receiver), partial(self._arrive, index, copy, parcel))

    def carry_word(self, by: int, parcel: Parcel) -> None:
        """What a puppet says."""
        self.carry(by, by, replace(parcel, to=parcel.to & frozenset(self.by_number)))

    def _note_said(self, index: int, parcel: Parcel) -> None:
        message = parcel.message
        if isinstance(message, SignedVote):
            if message.voter == KEYS[index].public and message.signature not in self._is_spoken:
                self._is_spoken.add(message.signature)
                self.said.append(message)
        elif isinstance(message, SignedProposal):
            proposal = message.proposal
            blocks = self.first_proposed.setdefault(proposal.height, {})
            if blocks.setdefault(proposal.round, proposal.block_id) == proposal.block_id:
                self.puppets.play_proposal(proposal.round)

    def _count_arrivals(self, sender: int, receiver: int) -> int:
        """In how many pieces a message arrives in the weather of the moment."""
        weather = self._weather
        if self.is_healed or weather is None:
            return 1
        if weather.groups and not any(sender in group and receiver in group for group in weather.groups):
            return 0
        if self.random.randrange(100) < weather.drop_percent:
            return 0
        return 2 if self.random.randrange(100) < weather.duplicate_percent else 1

    def _compute_delay(self, sender: int, receiver: int) -> int:
        most = self.scenario.delay_ms_max
        if self._weather is not None:
            most = self._weather.delay_ms_max
        return self._slow.get((sender, receiver), 0) + 1 + int(self.random.random() * most)

    def _arrive(self, sender: int, copy: Copy, parcel: Parcel) -> None:
        if not copy.is_up:
            return
        message = parcel.message
        if isinstance(message, SignedProposal):
            known = self.blocks.get(message.proposal.block_id)
            if known is None or known[0] != message.proposal.time_ms:
                return  # the caller of an engine never lets such a proposal through
        copy.heard.append(message)
        if parcel.polka is not None:
            copy.heard.append(parcel.polka)
        input_ = to_input(message, KEYS[sender].public, parcel.body, parcel.polka, self._clock(copy))
        if input_ is not None:
            self.tell(copy, input_, sender=sender)

    def _build_bag(self, copy: Copy) -> Bag:
        height = copy.state.height
        return Bag(
            key=copy.key,
            others=tuple(member.public_key for member in self.validators.members if member.public_key != copy.key),
            chain_hash=CONTEXT.compute_hash(),
            sign_vote=partial(self.make_vote, copy.index),
            sign_proposal=partial(self.make_proposal, copy.index),
            make_block=self.make_block,
            list_blocks=lambda: [block for _, block in sorted(self.first_proposed.get(height, {}).items())],
            heard=copy.heard,
            random=self.random,
        )

    def is_durable(self, copy: Copy, message: Message) -> bool:
        """Whether a message of ours stands in the journal of this copy."""
        return copy.disk.holds(encode_message(message))
