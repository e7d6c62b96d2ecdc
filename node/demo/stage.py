"""What the steps of the demo share: the community and its plan, the people, the network, and what came of it so far.

Owns the helpers that every step needs to speak of energy: from the plan's names to the ledger's ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from contracts_native.lots import FIRST_VERSION, LotId, SliceRef
from contracts_native.readings import Report
from ledger.fields import Json
from ledger.primitives import Address, format_address
from node.demo.checks import Checklist
from node.demo.data import Community
from node.demo.narrator import Narrator
from node.demo.network import Network, Order
from node.demo.people import Cast, Person
from node.demo.plan import HourOfUse, Part, Sale
from node.testnet import Testnet

CENTS_PER_EURO: Final = 100


@dataclass(slots=True)
class Stage:
    """The running demo. ``facts`` becomes the document that the summary is drawn from."""

    community: Community
    sales: list[Sale]
    hours: list[HourOfUse]
    cast: Cast
    testnet: Testnet
    network: Network
    narrator: Narrator
    checks: Checklist = field(default_factory=Checklist)
    facts: dict[str, Json] = field(default_factory=dict)
    site_ids: dict[str, str] = field(default_factory=dict)  # name → hex
    refusals: list[Json] = field(default_factory=list)
    last_reports: dict[str, Report] = field(default_factory=dict)  # name → what its meter signed last

    async def try_in_vain(self, title: str, order: Order, *, reason: str) -> None:
        """Submit what the ledger must refuse for this very reason; keep what it said for the summary."""
        refusal = await self.network.find_refusal(order)
        said, item = ("accepted", "") if refusal is None else (refusal.reason, refusal.item)
        self.checks.compare(f"refused: {title}", said, reason)
        self.refusals.append({"title": title, "reason": said, "item": self.name_all(item), "expected": reason})

    def name_all(self, text: str) -> str:
        """A text of the ledger with the names of people and meters in place of their ids."""
        for person in self.cast.owners.values():
            for given in (person.meter.meter_id.hex(), person.address_text):
                text = text.replace(given, person.place.label)
        return text

    def make_refs(self, parts: Iterable[Part]) -> tuple[SliceRef, ...]:
        """The slices that the plan's parts are."""
        return tuple(self.make_ref(part) for part in parts)

    def make_ref(self, part: Part) -> SliceRef:
        """The slice that a part of the plan is."""
        meter = self.cast.owners[part.seller].meter
        lot = LotId(meter.meter_id, self.community.get_start_ms(part.quarter), FIRST_VERSION)
        return SliceRef(lot, part.first_wh, part.end_wh)

    async def get_balance_cents(self, address: Address) -> int:
        """The credits that a participant has, by a node's answer."""
        answer = await self.network.ask().credit_balance(format_address(address))
        return int(answer["balance_cents"])

    def pick_producer(self) -> Person:
        """The roof with the largest output: the plant and the prosumer of the story."""
        roofs = [one for one in self.cast.producers if one.place.kind == "solar"]
        return max(roofs, key=lambda one: sum(one.place.values_wh))

    def pick_buyer(self) -> Person:
        """The consumer with the largest consumption: the buyer of the story."""
        return max(self.cast.consumers, key=lambda one: sum(one.place.values_wh))

    def pick_household(self) -> Person:
        """The household with the largest consumption: the one with a deposit."""
        homes = [one for one in self.cast.consumers if one.place.kind == "household"]
        return max(homes, key=lambda one: sum(one.place.values_wh))


def format_money(cents: int) -> str:
    """Cents as euros."""
    return f"{cents // CENTS_PER_EURO:,}.{cents % CENTS_PER_EURO:02} €"
