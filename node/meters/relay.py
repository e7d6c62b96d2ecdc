"""The relay as a machine: what a meter showed and what the ledger answered come in, what to save and to send goes out.

Owns the promise that nothing is lost and nothing is reported twice. Orders are to be carried out one after the other:
an interval is saved before it counts, a report is saved with its number and signature before it is sent, and it is
forgotten when the ledger is known to have it. Time comes with every input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from contracts_native.lots import INTERVALS_PER_REPORT_MAX
from contracts_native.meters import Channel
from contracts_native.readings import Report
from node.meter_files.stretches import LATE_MS_MAX
from node.meters.reports import NEVER, SigningMeter, Stand, advance_stand, compute_retry_ms, make_stretch

REFUSALS_MAX: Final = 3  # of the same report; then it is set aside, and the next one has its turn
WAITING_MAX: Final = 400_000  # intervals: more than five years of both channels of a meter
ALREADY: Final = frozenset({"interval_already_reported", "sequence_not_rising", "transaction_already_committed"})
NOT_YET: Final = frozenset(  # the same report may be taken later
    {
        *("reading_in_the_future", "transaction_already_pending", "transaction_expired"),
        *("node_is_syncing", "node_is_stopping", "mempool_full", "mempool_share_used"),
    }
)


@dataclass(frozen=True, slots=True, order=True)
class Interval:
    """What a channel's counter did between two edges. Ordered by time."""

    start_ms: int
    channel: Channel
    interval_s: int
    counter_start_wh: int
    counter_end_wh: int

    @property
    def end_ms(self) -> int:
        """Its end."""
        return self.start_ms + self.interval_s * 1_000

    @property
    def wh(self) -> int:
        """What it measured."""
        return self.counter_end_wh - self.counter_start_wh


@dataclass(frozen=True, slots=True)
class Edge:
    """What a counter showed at the last edge between two intervals."""

    time_ms: int
    counter_wh: int


@dataclass(frozen=True, slots=True)
class Sealed:
    """A report that was, or may have been, sent, with the intervals in it."""

    report: Report
    intervals: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """What an outbox holds. ``aside``: intervals that the ledger refused; they are tried again at the next start."""

    edges: Mapping[Channel, Edge] = field(default_factory=dict)
    waiting: tuple[Interval, ...] = ()
    sealed: Sealed | None = None
    aside: tuple[Interval, ...] = ()


# — what comes in —


@dataclass(frozen=True, slots=True)
class Showed:
    """A telegram: a channel's counter at a time."""

    channel: Channel
    time_ms: int
    counter_wh: int


@dataclass(frozen=True, slots=True)
class Woken:
    """The time that ``next_wake_ms`` asked for has come."""


@dataclass(frozen=True, slots=True)
class Answered:
    """Where the channels stand on the ledger, and which intervals it has of the sealed report's time, by start."""

    stands: Mapping[Channel, Stand]
    reported: frozenset[int]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The ledger has the sealed report."""


@dataclass(frozen=True, slots=True)
class RefusedBy:
    """The ledger does not take the sealed report."""

    reason: str
    item: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody answered, or not in time: what was sent may have arrived or not."""

    why: str


Input: TypeAlias = Showed | Woken | Answered | Accepted | RefusedBy | Unknown

# — what goes out —


@dataclass(frozen=True, slots=True)
class SaveEdge:
    """Keep what a counter showed and, in the same step, the interval that it ended."""

    channel: Channel
    edge: Edge
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class SaveSealed:
    """Keep a report before it is sent; its intervals no longer wait."""

    sealed: Sealed


@dataclass(frozen=True, slots=True)
class Forget:
    """The ledger has these: nobody needs them here any more. The sealed report is opened."""

    intervals: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class Unseal:
    """The sealed report is not on the ledger: its intervals wait again, or are set aside."""

    intervals: tuple[Interval, ...]
    is_aside: bool


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask where the channels stand, and what is reported of the sealed report's time."""

    sealed: Sealed | None


@dataclass(frozen=True, slots=True)
class Send:
    """Submit a report and wait until it is final."""

    report: Report


@dataclass(frozen=True, slots=True)
class Note:
    """Something that a person should know."""

    text: str


Order: TypeAlias = SaveEdge | SaveSealed | Forget | Unseal | Ask | Send | Note


class Relay:
    """One meter's relay, going on from what its outbox holds."""

    def __init__(self, meter: SigningMeter, contents: Contents) -> None:
        self.meter = meter
        self.delivered = 0  # intervals, since the start
        self._edges = dict(contents.edges)
        self._waiting = sorted((*contents.waiting, *contents.aside))
        self._sealed = contents.sealed
        self._aside: list[Interval] = []
        self._stands: dict[Channel, Stand] | None = None
        self._is_busy = False  # a question or a report is under way
        self._failures = 0
        self._refusals = 0
        self._retry_ms = 0

    @property
    def waiting(self) -> int:
        """How many intervals the ledger is not known to have, but for those set aside."""
        return len(self._waiting) + (len(self._sealed.intervals) if self._sealed else 0)

    @property
    def aside(self) -> int:
        """How many intervals the ledger refused."""
        return len(self._aside)

    @property
    def next_wake_ms(self) -> int | None:
        """When to be woken, if nothing happens before."""
        return self._retry_ms if self.waiting and not self._is_busy else None

    def handle(self, what: Input, now_ms: int) -> list[Order]:
        """The orders that follow from an input, to be carried out in turn."""
        match what:
            case Showed():
                orders = self._take(what)
            case Woken():
                orders = []
            case Answered():
                orders = self._reconcile(what)
            case Accepted():
                orders = self._settle()
            case RefusedBy():
                orders = self._refused(what, now_ms)
            case Unknown():
                orders = self._back_off(what.why, now_ms)
        return [*orders, *self._go_on(now_ms)]

    def _take(self, showed: Showed) -> list[Order]:
        """A counter's value: an interval, if it is the first behind an edge and the edge before is known."""
        length_s = self.meter.lengths_s.get(showed.channel)
        if length_s is None:
            return []
        edge_ms = showed.time_ms - showed.time_ms % (length_s * 1_000)
        before = self._edges.get(showed.channel)
        if showed.time_ms - edge_ms > LATE_MS_MAX or (before is not None and edge_ms <= before.time_ms):
            return []
        edge = Edge(edge_ms, showed.counter_wh)
        orders: list[Order] = []
        interval = None
        if before is not None and edge.counter_wh < before.counter_wh:
            orders.append(Note(f"{showed.channel}: the counter runs backwards; it counts anew from {edge_ms} ms"))
        elif before is not None and before.time_ms != edge_ms - length_s * 1_000:
            orders.append(Note(f"{showed.channel}: no telegram at an edge since {before.time_ms} ms; that is a gap"))
        elif before is not None and self.waiting >= WAITING_MAX:
            orders.append(Note(f"{showed.channel}: the outbox is full; the interval until {edge_ms} ms is a gap"))
        elif before is not None:
            interval = Interval(before.time_ms, showed.channel, length_s, before.counter_wh, edge.counter_wh)
            self._waiting.append(interval)
        self._edges[showed.channel] = edge
        return [*orders, SaveEdge(showed.channel, edge, interval)]

    def _reconcile(self, answered: Answered) -> list[Order]:
        """The ledger's word on what may or may not have arrived."""
        self._is_busy = False
        self._failures = 0
        self._stands = dict(answered.stands)
        if self._sealed is None:
            return []
        report, intervals = self._sealed.report, self._sealed.intervals
        there = tuple(one for one in intervals if one.start_ms in answered.reported)
        missing = tuple(one for one in intervals if one.start_ms not in answered.reported)
        if not missing:
            return self._forget(intervals)
        if not there and report.sequence > self._stands.get(report.channel, NEVER).sequence:
            return []  # it never arrived: the very same report goes again
        orders: list[Order] = [Forget(there)] if there else []
        self.delivered += len(there)
        return [*orders, *self._unseal(missing, is_aside=False)]

    def _settle(self) -> list[Order]:
        assert self._sealed is not None
        assert self._stands is not None
        self._is_busy = False
        self._failures = self._refusals = 0
        report = self._sealed.report
        self._stands[report.channel] = advance_stand(self._stands.get(report.channel, NEVER), report)
        return self._forget(self._sealed.intervals)

    def _refused(self, refused: RefusedBy, now_ms: int) -> list[Order]:
        assert self._sealed is not None
        if refused.reason in ALREADY:  # an earlier try arrived after all, or somebody else reports for this meter
            self._refusals += 1
            if self._refusals < REFUSALS_MAX:
                self._is_busy, self._stands = False, None
                return []
        text = f"refused: {refused.reason}: {refused.item}"
        if refused.reason in NOT_YET:
            return self._back_off(text, now_ms)
        self._refusals += 1
        orders = self._back_off(text, now_ms)
        is_aside = self._refusals >= REFUSALS_MAX
        if is_aside:
            self._refusals = 0
            orders.append(Note(f"set aside: {len(self._sealed.intervals)} intervals of {self._sealed.report}"))
        return [*orders, *self._unseal(self._sealed.intervals, is_aside=is_aside)]

    def _back_off(self, why: str, now_ms: int) -> list[Order]:
        self._is_busy, self._stands = False, None  # ask before anything is sent again
        self._failures += 1
        delay_ms = compute_retry_ms(self._failures)
        self._retry_ms = now_ms + delay_ms
        return [Note(f"{why}; again in {delay_ms // 1_000} s, {self.waiting} intervals wait")]

    def _forget(self, intervals: tuple[Interval, ...]) -> list[Order]:
        self.delivered += len(intervals)
        self._sealed = None
        return [Forget(intervals)]

    def _unseal(self, intervals: tuple[Interval, ...], *, is_aside: bool) -> list[Order]:
        self._sealed = None
        if is_aside:
            self._aside += intervals
        else:
            self._waiting = sorted((*intervals, *self._waiting))
        return [Unseal(intervals, is_aside)]

    def _go_on(self, now_ms: int) -> list[Order]:
        """The next question or report, unless one is under way or it is too early."""
        if self._is_busy or now_ms < self._retry_ms or not self.waiting:
            return []
        self._is_busy = True
        if self._stands is None:
            return [Ask(self._sealed)]
        if self._sealed is not None:
            return [Send(self._sealed.report)]
        self._sealed = self._seal(self._stands)
        return [SaveSealed(self._sealed), Send(self._sealed.report)]

    def _seal(self, stands: Mapping[Channel, Stand]) -> Sealed:
        """The oldest interval that waits, with all that follow it without a gap, as a signed report."""
        first = self._waiting[0]
        taken = [first]
        for one in self._waiting[1:]:
            if one.channel is not first.channel:
                continue
            last = taken[-1]
            is_next = one.start_ms == last.end_ms and one.counter_start_wh == last.counter_end_wh
            if not is_next or one.interval_s != first.interval_s or len(taken) == INTERVALS_PER_REPORT_MAX:
                break
            taken.append(one)
        chosen = frozenset(taken)
        self._waiting = [one for one in self._waiting if one not in chosen]
        stand = stands.get(first.channel, NEVER)
        stretch = make_stretch(
            first.start_ms,
            first.interval_s,
            [one.wh for one in taken],
            register_start_wh=_compute_register_wh(first, stand),
        )
        report = self.meter.sign(first.channel, stretch, sequence=stand.sequence + 1)
        return Sealed(report, tuple(taken))


def _compute_register_wh(first: Interval, stand: Stand) -> int:
    """The register at the start of a report: the counter itself, unless the ledger's register went another way.

    That is so for a meter whose first readings came from a file, where the register began at nothing.
    """
    if stand == NEVER or first.start_ms < stand.end_ms:
        return first.counter_start_wh
    if first.start_ms == stand.end_ms:
        return stand.register_wh
    return max(first.counter_start_wh, stand.register_wh)
