"""The community of the example data on a chain of real blocks: thirty-one sites, a co-operative, a battery.

Owns who they are and what a day of theirs is. The data begins on 6 June 2016; here its first midnight is that of the
harness, so that its sites and meters can be used as they are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from contracts_native.amendments import SetShares
from contracts_native.claims import ClaimEnergy
from contracts_native.credits import IssueCredits
from contracts_native.lots import LotId, SliceRef, TransferEnergy
from contracts_native.meters import Channel
from contracts_native.offers import AcceptOffer, OpenOffer
from contracts_native.participants import RegisterParticipant, Role, make_possession_message
from contracts_native.readings import Report, SubmitReadings
from contracts_native.sites import Technology
from contracts_native.storage import ChargeStorage
from ledger.primitives import Address
from ledger.transaction import Payload, Transaction
from node.demo.data import QUARTERS_PER_DAY, Community
from node.demo.plan import HourOfUse, Part, Sale, allocate, group_hours, group_sales
from node.queries import audit
from tests.contracts_native.harness import (
    CAROL,
    CHAIN_ID,
    DAY_0_MS,
    DAY_MS,
    HOUR_MS,
    ORACLE,
    QUARTER_MS,
    UTILITY,
    Applied,
    Person,
    SigningMeter,
    make_person,
)
from tests.node.query_answers import rows
from tests.node.query_chain import QueryChain

COOPERATIVE = "g09_wind"  # Carol has three tenths of it
COOPERATIVE_SHARES = (7, 3)
OFFERED_BY_BOOK = (COOPERATIVE, "g11_hydro")  # these sell by offers, the others by agreement
BATTERY_W = 20_000
CHARGED_WH = 2_000  # in each of the quarters that it charges
CHARGING = range(48, 56)
DISCHARGING = range(72, 80)
EFFICIENCY_PER_MILLE = 850
PAID_IN_CENTS = 20_000
CLAIM_PURPOSE = "own use"


class AuditedChain(QueryChain):
    """Every block is followed by an audit of the whole chain."""

    def commit_block(self, transactions: Sequence[Transaction]) -> list[Applied]:
        applied = super().commit_block(transactions)
        answer = audit.chain_audit(self.view)
        assert answer["holds"] is True, [one for one in rows(answer, "sums") if not one["holds"]]
        assert answer["height"] == self.height
        return applied


class CommunityChain:
    """The chain, its people, and what they plan to do."""

    def __init__(self, community: Community) -> None:
        self.chain = AuditedChain()
        self.chain.time_ms = DAY_0_MS + HOUR_MS
        self.community = community
        self.people = {place.name: make_person(place.name) for place in community.places}
        self.meters: dict[str, SigningMeter] = {}
        self.sites: dict[str, bytes] = {}
        self.claimed: dict[bytes, HourOfUse] = {}
        self.stored_wh = self.discharged_wh = self.uncovered_wh = 0
        parts = allocate(community)
        self.sales: dict[int, list[Sale]] = defaultdict(list)
        self.uses: dict[int, list[HourOfUse]] = defaultdict(list)
        for sale in group_sales(community, parts):
            self.sales[sale.day].append(sale)
        for use in group_hours(parts):
            self.uses[use.hour // 24].append(use)

    def commit(self, transactions: Sequence[Transaction]) -> list[Applied]:
        """A block of all of these."""
        applied = self.chain.commit_block(transactions)
        assert len(applied) == len(transactions), "all of them fit"
        self.chain.time_ms += 1_000
        return applied

    def sign(self, payload: Payload, by: Person, *cosigners: Person) -> Transaction:
        return self.chain.read(payload, by=by, cosigners=cosigners)

    def settle(self) -> None:
        """People, sites, meters, shares and credits."""
        producers = {place.name for place in self.community.producers}
        self.commit([self.register(person, name in producers) for name, person in self.people.items()])
        for place in self.community.places:
            kind = Technology(place.kind) if place.name in producers else Technology.LOAD
            channel = Channel.PRODUCTION if place.name in producers else Channel.CONSUMPTION
            self.add_place(place.name, self.people[place.name], kind, [channel], place.rated_w)
        self.add_place("battery", CAROL, Technology.STORAGE, list(Channel), BATTERY_W)
        owner = self.people[COOPERATIVE]
        weights = zip((owner.address, CAROL.address), COOPERATIVE_SHARES, strict=True)
        shares = SetShares(self.sites[COOPERATIVE], tuple(weights))
        paid_in = [IssueCredits(one.address, PAID_IN_CENTS, f"for {name}") for name, one in self.people.items()]
        self.commit([self.sign(shares, UTILITY, owner), *(self.sign(one, UTILITY) for one in paid_in)])

    def register(self, person: Person, is_producer: bool) -> Transaction:
        possession = person.sign(make_possession_message(CHAIN_ID, UTILITY.address, person.public_key))
        role = Role.PROSUMER if is_producer else Role.CONSUMER
        return self.sign(RegisterParticipant(person.public_key, possession, (role,), person.name), UTILITY)

    def add_place(
        self, name: str, owner: Person, technology: Technology, channels: list[Channel], capacity_w: int
    ) -> None:
        self.sites[name] = self.chain.register_site(owner, technology=technology, capacity_w=capacity_w)
        self.meters[name] = self.chain.register_meter(owner, self.sites[name], channels=channels, capacity_w=capacity_w)

    def live(self, day: int) -> None:
        """Readings, sales and a charge, deliveries and what the battery gives back, and the claims of each hour."""
        self.chain.time_ms = max(self.chain.time_ms, DAY_0_MS + (day + 1) * DAY_MS + HOUR_MS)
        charged_wh = self.get_charged_wh(day)
        self.commit([self.report_day(day, charged_wh)])
        by_book = [sale for sale in self.sales[day] if sale.seller in OFFERED_BY_BOOK and sale.cents]
        agreed = [sale for sale in self.sales[day] if sale not in by_book]
        opened = self.commit(
            [
                *(self.offer(sale) for sale in by_book),
                *(self.transfer(sale) for sale in agreed),
                *(self.charge(day, charged_wh) if any(charged_wh) else ()),
            ]
        )
        offers = [one.make_id("offer") for one in opened[: len(by_book)]]
        self.commit(
            [
                *(self.accept(sale, offer) for sale, offer in zip(by_book, offers, strict=True)),
                self.discharge(day, charged_wh),
            ]
        )
        uses = self.uses[day]
        claims = self.commit([self.claim(use) for use in uses])
        self.claimed.update((one.make_id("claim"), use) for one, use in zip(claims, uses, strict=True))

    def report_day(self, day: int, charged_wh: Sequence[int]) -> Transaction:
        reports: list[Report] = []
        for place in self.community.places:
            channel = Channel.CONSUMPTION if place in self.community.consumers else Channel.PRODUCTION
            reports.append(self.meters[place.name].report(channel, place.get_day_wh(day)))
        start_ms = DAY_0_MS + day * DAY_MS + CHARGING.start * QUARTER_MS
        reports.append(self.meters["battery"].report(Channel.CONSUMPTION, charged_wh, start_ms=start_ms))
        return self.sign(SubmitReadings(tuple(reports)), ORACLE)

    def get_wh(self, name: str, quarter: int) -> int:
        return next(place for place in self.community.places if place.name == name).values_wh[quarter]

    def get_charged_wh(self, day: int) -> list[int]:
        """What the battery takes of Carol's part of the wind in each quarter-hour."""
        quarters = [day * QUARTERS_PER_DAY + one for one in CHARGING]
        mine, all_shares = COOPERATIVE_SHARES[1], sum(COOPERATIVE_SHARES)
        return [min(CHARGED_WH, self.get_wh(COOPERATIVE, one) * mine // all_shares) for one in quarters]

    def make_lot(self, name: str, quarter: int) -> LotId:
        return LotId(self.meters[name].meter_id, DAY_0_MS + quarter * QUARTER_MS, 1)

    def make_refs(self, parts: Sequence[Part]) -> tuple[SliceRef, ...]:
        return tuple(SliceRef(self.make_lot(one.seller, one.quarter), one.first_wh, one.end_wh) for one in parts)

    def offer(self, sale: Sale) -> Transaction:
        payload = OpenOffer(self.make_refs(sale.parts), self.chain.time_ms + DAY_MS, total_cents=sale.cents)
        return self.sign(payload, self.people[sale.seller])

    def accept(self, sale: Sale, offer: bytes) -> Transaction:
        return self.sign(AcceptOffer(offer, sum(part.wh for part in sale.parts)), self.people[sale.buyer])

    def transfer(self, sale: Sale) -> Transaction:
        payload = TransferEnergy(self.people[sale.buyer].address, self.make_refs(sale.parts), "agreed")
        return self.sign(payload, self.people[sale.seller])

    def charge(self, day: int, charged_wh: Sequence[int]) -> list[Transaction]:
        refs: list[SliceRef] = []
        for place, wh in zip(CHARGING, charged_wh, strict=True):
            quarter = day * QUARTERS_PER_DAY + place
            end_wh = self.get_wh(COOPERATIVE, quarter)
            if wh:
                refs.append(SliceRef(self.make_lot(COOPERATIVE, quarter), end_wh - wh, end_wh))
        self.stored_wh += sum(charged_wh)
        return [self.sign(ChargeStorage(self.meters["battery"].meter_id, tuple(refs), f"charge {day}"), CAROL)]

    def discharge(self, day: int, charged_wh: Sequence[int]) -> Transaction:
        """All that the charges leave and, on the first day, a little more than that."""
        values_wh = [wh * EFFICIENCY_PER_MILLE // 1_000 for wh in charged_wh]
        if day == 0:
            self.uncovered_wh = 100
            values_wh[-1] += self.uncovered_wh
        self.discharged_wh += sum(values_wh)
        start_ms = DAY_0_MS + day * DAY_MS + DISCHARGING.start * QUARTER_MS
        report = self.meters["battery"].report(Channel.PRODUCTION, values_wh, start_ms=start_ms)
        return self.sign(SubmitReadings((report,)), ORACLE)

    def claim(self, use: HourOfUse) -> Transaction:
        payload = self.make_claim(use.buyer, use.hour, self.make_refs(use.parts), f"hour {use.hour}")
        return self.sign(payload, self.people[use.buyer])

    def make_claim(
        self, buyer: str, hour: int, refs: tuple[SliceRef, ...], statement: str, replaces: bytes | None = None
    ) -> ClaimEnergy:
        start_ms = DAY_0_MS + hour * HOUR_MS
        meter_id = self.meters[buyer].meter_id
        address: Address = self.people[buyer].address
        return ClaimEnergy(refs, address, CLAIM_PURPOSE, start_ms, start_ms + HOUR_MS, statement, meter_id, replaces)
