"""A ledger, a meter and a power switch for the tests of the relay: everything but a network and a disk.

Owns the ledger's rules as far as a relay meets them, and a runner that can be killed between any two orders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from contracts_native.meters import Channel
from contracts_native.readings import Report
from node.keystore import MeterSigningKey
from node.meters.relay import (
    Accepted,
    Answered,
    Ask,
    Contents,
    Forget,
    Input,
    Note,
    Order,
    RefusedBy,
    Relay,
    SaveEdge,
    SaveSealed,
    Sealed,
    Send,
    Showed,
    Unknown,
    Unseal,
    Woken,
)
from node.meters.reports import NEVER, SigningMeter, Stand, advance_stand

QUARTER_MS = 900_000
START_MS = 1_717_632_000_000
PRODUCTION = Channel.PRODUCTION
METER = SigningMeter(
    "test-chain", bytes(range(16)), dict.fromkeys(Channel, 900), MeterSigningKey.from_seed(bytes([9] * 32))
)


class Killed(Exception):
    """The power went away."""


@dataclass
class Ledger:
    """What the contracts keep of a meter. ``is_away``: nobody answers. ``refusal``: what it says to every report."""

    stands: dict[Channel, Stand] = field(default_factory=lambda: dict.fromkeys(Channel, NEVER))
    values: dict[tuple[Channel, int], int] = field(default_factory=dict)
    registers: dict[tuple[Channel, int], int] = field(default_factory=dict)
    is_away: bool = False
    loses_answers: bool = False
    refusal: str = ""
    sent: list[Report] = field(default_factory=list)

    def submit(self, report: Report) -> Input:
        if self.is_away:
            return Unknown("no connection")
        self.sent.append(report)
        reason = self.refusal or self._judge(report)
        if not reason:
            self._accept(report)
        if self.loses_answers:
            return Unknown("no answer")
        return RefusedBy(reason, str(report)) if reason else Accepted()

    def _judge(self, report: Report) -> str:
        stand = self.stands[report.channel]
        if report.sequence <= stand.sequence:
            return "sequence_not_rising"
        if any((report.channel, start_ms) in self.values for start_ms in list_starts(report)):
            return "interval_already_reported"
        if report.start_ms == stand.end_ms and report.register_start_wh != stand.register_wh:
            return "registers_not_continuous"
        if report.start_ms > stand.end_ms and report.register_start_wh < stand.register_wh:
            return "registers_not_continuous"
        return ""

    def _accept(self, report: Report) -> None:
        for start_ms, wh in zip(list_starts(report), report.values_wh, strict=True):
            assert (report.channel, start_ms) not in self.values, "reported twice"
            self.values[report.channel, start_ms] = wh
        self.stands[report.channel] = advance_stand(self.stands[report.channel], report)

    def ask(self, sealed: Sealed | None) -> Input:
        if self.is_away:
            return Unknown("no connection")
        starts = () if sealed is None else list_starts(sealed.report)
        channel = None if sealed is None else sealed.report.channel
        return Answered(dict(self.stands), frozenset(start for start in starts if (channel, start) in self.values))


def list_starts(report: Report) -> list[int]:
    return [report.start_ms + i * report.interval_s * 1_000 for i in range(len(report.values_wh))]


@dataclass
class MemoryOutbox:
    """What an outbox keeps, without a disk."""

    contents: Contents = field(default_factory=Contents)

    def read(self) -> Contents:
        return self.contents

    def save(self, order: SaveEdge | SaveSealed | Forget | Unseal) -> None:
        held = self.contents
        match order:
            case SaveEdge(channel, edge, interval):
                waiting = held.waiting if interval is None else (*held.waiting, interval)
                self.contents = replace(held, edges={**held.edges, channel: edge}, waiting=waiting)
            case SaveSealed(sealed):
                gone = set(sealed.intervals)
                self.contents = replace(
                    held,
                    sealed=sealed,
                    waiting=tuple(one for one in held.waiting if one not in gone),
                    aside=tuple(one for one in held.aside if one not in gone),
                )
            case Forget(intervals):
                assert held.sealed is not None
                rest = tuple(one for one in held.sealed.intervals if one not in intervals)
                self.contents = replace(held, sealed=None, waiting=(*rest, *held.waiting))
            case Unseal(intervals, is_aside):
                waiting = tuple(one for one in held.waiting if one not in intervals)
                if is_aside:
                    self.contents = replace(held, sealed=None, waiting=waiting, aside=(*held.aside, *intervals))
                else:
                    self.contents = replace(held, sealed=None, waiting=(*intervals, *waiting))


@dataclass
class Machine:
    """A relay that runs until its power is cut: ``steps_left`` orders, or answers that arrive, from now."""

    ledger: Ledger
    outbox: MemoryOutbox
    steps_left: int = 10**9
    now_ms: int = START_MS
    notes: list[str] = field(default_factory=list)
    relay: Relay = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        self.relay = Relay(METER, self.outbox.read())

    def show(self, time_ms: int, counter_wh: int, channel: Channel = PRODUCTION) -> None:
        self.now_ms = max(self.now_ms, time_ms)
        self._run(Showed(channel, time_ms, counter_wh))

    def wake(self) -> None:
        """Let time pass until the relay wants to be woken, as often as it wants."""
        for _ in range(40):
            wake_ms = self.relay.next_wake_ms
            if wake_ms is None:
                return
            self.now_ms = max(self.now_ms, wake_ms)
            self._run(Woken())

    def _run(self, what: Input) -> None:
        todo: list[Order | Input] = [*self.relay.handle(what, self.now_ms)]
        while todo:
            one = todo.pop(0)
            self._step()
            answer = self._carry_out(one)
            if answer is not None:
                self._step()  # the answer is on its way, and may find nobody
                todo += self.relay.handle(answer, self.now_ms)

    def _carry_out(self, one: Order | Input) -> Input | None:
        match one:
            case SaveEdge() | SaveSealed() | Forget() | Unseal():
                self.outbox.save(one)
            case Ask(sealed):
                return self.ledger.ask(sealed)
            case Send(report):
                assert self.outbox.read().sealed is not None, "saved before it is sent"
                return self.ledger.submit(report)
            case Note(text):
                self.notes.append(text)
        return None

    def _step(self) -> None:
        if self.steps_left == 0:
            raise Killed
        self.steps_left -= 1


def play(machine: Machine, counters: list[int], restart: Callable[[], None]) -> None:
    """Show a counter at every quarter from the start; when the power comes back, the telegram is repeated."""
    for place, counter_wh in enumerate(counters):
        try:
            machine.show(START_MS + place * QUARTER_MS, counter_wh)
        except Killed:
            restart()
            machine.show(START_MS + place * QUARTER_MS, counter_wh)
