"""A small market for the tests of claims, corrections and offers: Alice produces, Bob consumes what he bought."""

from __future__ import annotations

from dataclasses import dataclass

from contracts_native.claims import Claim, ClaimEnergy, get_claim, get_lost_wh
from contracts_native.corrections import CorrectReading, WithdrawEnergy
from contracts_native.lots import LotId, SliceRef, TransferEnergy, get_slices
from contracts_native.matching import get_claimed_wh
from contracts_native.meters import Channel
from contracts_native.readings import Flag, find_report_at
from ledger.parameters import Parameters
from tests.contracts_native.harness import (
    ALICE,
    BOB,
    DAY_0_MS,
    DAY_MS,
    MEASURER,
    Applied,
    Person,
    SigningMeter,
    World,
)


@dataclass
class Market:
    """Statement numbers count up, so that each claim has its own."""

    world: World
    producer: SigningMeter
    consumer: SigningMeter
    statements: int = 0

    def buy(self, *values_wh: int, start_ms: int | None = None) -> list[LotId]:
        lots = self.world.produce(self.producer, *values_wh, start_ms=start_ms)
        refs = tuple(SliceRef(lot, 0, wh) for lot, wh in zip(lots, values_wh, strict=True) if wh)
        self.world.apply(TransferEnergy(BOB.address, refs, ""), by=ALICE)
        return lots

    def make_claim(
        self, *refs: SliceRef, hourly: bool = True, beneficiary: Person = BOB, replaces: bytes | None = None
    ) -> ClaimEnergy:
        self.statements += 1
        return ClaimEnergy(
            refs,
            beneficiary.address,
            "own use",
            DAY_0_MS,
            DAY_0_MS + DAY_MS,
            f"2024-{self.statements}",
            self.consumer.meter_id if hourly else None,
            replaces,
        )

    def claim(self, *refs: SliceRef, hourly: bool = True, replaces: bytes | None = None) -> bytes:
        """Bob claims; the claim's id."""
        return self.world.apply(self.make_claim(*refs, hourly=hourly, replaces=replaces), by=BOB).make_id("claim")

    def get_claim(self, claim_id: bytes) -> Claim:
        return get_claim(self.world.state, claim_id)

    def lost_wh(self, claim_id: bytes) -> tuple[int, ...]:
        return get_lost_wh(self.world.state, claim_id, self.get_claim(claim_id))

    def list_claimed(self, start_ms: int = DAY_0_MS) -> tuple[int, ...]:
        record = find_report_at(self.world.state, self.consumer.meter_id, Channel.CONSUMPTION, start_ms)
        assert record is not None
        return get_claimed_wh(self.world.state, self.consumer.meter_id, record)

    def withdraw(self, *lots: LotId) -> Applied:
        return self.world.apply(WithdrawEnergy(lots, "meter was wired backwards"), by=MEASURER)

    def correct(self, *values_wh: int, start_ms: int = DAY_0_MS, flag: Flag = Flag.MEASURED) -> Applied:
        """The measurement body corrects production."""
        return self.world.apply(
            correction(self.producer, Channel.PRODUCTION, *values_wh, start_ms=start_ms, flag=flag), by=MEASURER
        )

    def correct_consumption(self, *values_wh: int, start_ms: int = DAY_0_MS) -> Applied:
        return self.world.apply(
            correction(self.consumer, Channel.CONSUMPTION, *values_wh, start_ms=start_ms), by=MEASURER
        )

    def list_statuses(self, lot: LotId) -> list[tuple[int, str]]:
        return [(one.end_wh, one.status.value) for one in get_slices(self.world.state, lot)]


def correction(
    meter: SigningMeter, channel: Channel, *values_wh: int, start_ms: int = DAY_0_MS, flag: Flag = Flag.MEASURED
) -> CorrectReading:
    return CorrectReading(meter.meter_id, channel, start_ms, values_wh, flag, "wrong transformer ratio")


def make_market(
    *,
    production_s: int = 900,
    consumption_s: int = 900,
    zones: tuple[str, str] = ("DE-LU", "DE-LU"),
    parameters: Parameters | None = None,
    world: World | None = None,
) -> Market:
    world = World(parameters) if world is None else world
    producer = world.add_producer(ALICE, zone=zones[0], interval_s=production_s)
    return Market(world, producer, world.add_consumer(BOB, zone=zones[1], interval_s=consumption_s))
