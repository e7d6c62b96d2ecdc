"""Who buys what from whom: the community's market, as a pure function of its meter data.

Owns the order of preference, the prices, and how purchases become sales of a day and uses of an hour. The same data
always gives the same plan; the ledger then judges every step of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from node.demo.data import QUARTERS_PER_DAY, QUARTERS_PER_HOUR, Community, Place

PREFERENCE: Final = ("solar", "hydro", "wind", "biomass")  # neighbours' roofs first
PRICE_CENTS_PER_MWH: Final = {"solar": 11_000, "hydro": 10_000, "wind": 9_000, "biomass": 14_000}
# The plants of the medium-voltage network feed many villages; this is the part that they offer to this one.
OFFERED_PERMILLE: Final = {"solar": 1_000, "hydro": 60, "wind": 12, "biomass": 80}
WH_PER_MWH: Final = 1_000_000
STRIDE: Final = (
    7  # how far the queue of buyers turns each quarter-hour: first and last come to all within an hour or two
)


@dataclass(frozen=True, slots=True)
class Part:
    """The watt-hours [first_wh, end_wh) of what ``seller`` produced in a quarter-hour, for ``buyer``."""

    seller: str
    buyer: str
    quarter: int
    first_wh: int
    end_wh: int

    @property
    def wh(self) -> int:
        """How much it is."""
        return self.end_wh - self.first_wh


@dataclass(frozen=True, slots=True)
class Sale:
    """All that a buyer takes from a seller on a day. ``cents`` may be 0 when the sum of days rounds so."""

    seller: str
    buyer: str
    day: int
    parts: tuple[Part, ...]
    cents: int


@dataclass(frozen=True, slots=True)
class HourOfUse:
    """All that a buyer bought for an hour, to be claimed against its own consumption of that hour."""

    buyer: str
    hour: int
    parts: tuple[Part, ...]


def allocate(community: Community) -> list[Part]:
    """Cover each consumer's quarter-hour from the sources in order of preference, until either side is used up.

    Who is first turns with the quarter-hours, so that nobody is favoured; a quarter-hour has fewer parts than people.
    """
    parts: list[Part] = []
    for quarter in range(community.days * QUARTERS_PER_DAY):
        needs_wh = {place.name: place.values_wh[quarter] for place in _turn(community.consumers, quarter * STRIDE)}
        for kind in PREFERENCE:
            for producer in _turn([one for one in community.producers if one.kind == kind], quarter):
                parts += _sell(producer, quarter, needs_wh)
    return parts


def compute_offered_wh(producer: Place, quarter: int) -> int:
    """What a producer offers to this community of a quarter-hour's output."""
    return producer.values_wh[quarter] * OFFERED_PERMILLE[producer.kind] // 1_000


def compute_price_cents(kind: str, wh: int) -> int:
    """The price of energy, rounded half up to a cent."""
    return (wh * PRICE_CENTS_PER_MWH[kind] + WH_PER_MWH // 2) // WH_PER_MWH


def group_sales(community: Community, parts: Iterable[Part]) -> list[Sale]:
    """One sale for each seller, buyer and day, in order of days.

    A day's price is what the sum so far costs less what was asked before: cents of tiny amounts are not lost.
    """
    kinds = {producer.name: producer.kind for producer in community.producers}
    grouped: dict[tuple[int, str, str], list[Part]] = defaultdict(list)
    for part in parts:
        grouped[part.quarter // QUARTERS_PER_DAY, part.seller, part.buyer].append(part)
    sold_wh: dict[tuple[str, str], int] = defaultdict(int)
    sales: list[Sale] = []
    for (day, seller, buyer), of_day in sorted(grouped.items()):
        before_cents = compute_price_cents(kinds[seller], sold_wh[seller, buyer])
        sold_wh[seller, buyer] += sum(part.wh for part in of_day)
        cents = compute_price_cents(kinds[seller], sold_wh[seller, buyer]) - before_cents
        sales.append(Sale(seller, buyer, day, tuple(of_day), cents))
    return sales


def group_hours(parts: Iterable[Part]) -> list[HourOfUse]:
    """One use for each buyer and hour, in order of hours."""
    grouped: dict[tuple[int, str], list[Part]] = defaultdict(list)
    for part in parts:
        grouped[part.quarter // QUARTERS_PER_HOUR, part.buyer].append(part)
    return [HourOfUse(buyer, hour, tuple(of_hour)) for (hour, buyer), of_hour in sorted(grouped.items())]


def _sell(producer: Place, quarter: int, needs_wh: dict[str, int]) -> list[Part]:
    """Serve the needs in their order from one producer's quarter-hour; ``needs_wh`` is lowered by what was served."""
    parts: list[Part] = []
    first_wh, offered_wh = 0, compute_offered_wh(producer, quarter)
    for buyer, need_wh in needs_wh.items():
        wh = min(need_wh, offered_wh - first_wh)
        if wh:
            parts.append(Part(producer.name, buyer, quarter, first_wh, first_wh + wh))
            needs_wh[buyer] = need_wh - wh
            first_wh += wh
    return parts


def _turn(places: Sequence[Place], steps: int) -> list[Place]:
    start = steps % len(places) if places else 0
    return [*places[start:], *places[:start]]
