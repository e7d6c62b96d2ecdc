"""Storage: energy that goes into a battery to come out later.

Owns charge records, as the EnergyTag standard has them: charging cancels slices of the same zone and interval against
what the storage's meter took in. What comes out is minted from them (batteries.py), first in, first out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Final

from contracts_native import batteries, lots
from contracts_native.claims import Claim, ClaimId, ClaimKind, ClaimStatus, Statement, check_statement, put_claim
from contracts_native.lots import LotId, SliceRefs
from contracts_native.matching import Matching, list_parts
from contracts_native.meters import Channel, MeterId, find_channel, get_meter
from contracts_native.sites import Technology, get_site, get_site_throughout
from ledger.errors import NotPermitted, RuleViolated
from ledger.fields import Length
from ledger.primitives import Address, format_address
from ledger.receipt import Event, event
from ledger.state import State
from ledger.transaction import ANYONE, Payload, TxContext, transaction

CHARGE_PURPOSE: Final = "storage charge"


@event("storage.charged")
@dataclass(frozen=True, slots=True)
class EnergyCharged(Event):
    """A range of a lot went into a storage."""

    charge: ClaimId
    lot: LotId
    first_wh: int
    end_wh: int
    operator: Address
    meter: Annotated[bytes, Length(16, 16)]


@transaction("storage.charge", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class ChargeStorage(Payload):
    """Cancel slices that the sender's storage took in; ``statement`` is the operator's own number of the record.

    The id of the charge record, which is a claim of the kind ``charge``: ``tx.make_id("claim")``.
    """

    meter: MeterId
    slices: SliceRefs
    statement: Statement

    def apply(self, state: State, tx: TxContext) -> None:
        meter = get_meter(state, self.meter)
        site = get_site(state, meter.site)
        if site.technology is not Technology.STORAGE:
            raise RuleViolated("meter_of_no_storage", f"{self.meter.hex()} is at a {site.technology} site")
        if site.owner != tx.sender:
            raise NotPermitted("storage_of_another_operator", format_address(site.owner))
        spec = find_channel(meter, Channel.CONSUMPTION)
        if spec is None:
            raise RuleViolated("meter_channel_unknown", f"{self.meter.hex()} {Channel.CONSUMPTION}")
        check_statement(state, tx.sender, self.statement)
        charge_id = tx.make_id("claim")
        matching = Matching(state, self.meter, beneficiary=tx.sender, is_charge=True)
        ends_ms: list[int] = []
        for position, ref in enumerate(self.slices):
            lot = lots.charge(state, ref, owner=tx.sender, reference=charge_id, time_ms=tx.time_ms)
            matching.match(lot, ref.wh, position)
            ends_ms.append(lot.end_ms)
            state.emit(EnergyCharged(charge_id, ref.lot, ref.first_wh, ref.end_wh, tx.sender, self.meter))
        matching.write(charge_id)
        put_claim(state, charge_id, self._make_claim(tx, end_ms=max(ends_ms)))
        self._store(state, charge_id, meter.site, length_ms=spec.interval_s * 1_000)

    def _make_claim(self, tx: TxContext, *, end_ms: int) -> Claim:
        return Claim(
            claimant=tx.sender,
            beneficiary=tx.sender,
            purpose=CHARGE_PURPOSE,
            statement=self.statement,
            period_start_ms=min(ref.lot.start_ms for ref in self.slices),
            period_end_ms=end_ms,
            slices=self.slices,
            wh=sum(ref.wh for ref in self.slices),
            consumption_meter=self.meter,
            claimed_ms=tx.time_ms,
            status=ClaimStatus.CLAIMED,
            kind=ClaimKind.CHARGE,
            replaces=None,
        )

    def _store(self, state: State, charge_id: bytes, site_id: bytes, *, length_ms: int) -> None:
        """Let the battery take in what each interval charged, at the efficiency that the site had then."""
        intervals: Counter[int] = Counter()
        for part in list_parts(state, charge_id, self.meter, self.slices, [0] * len(self.slices)):
            intervals[part.start_ms] += part.wh
        for start_ms, wh in sorted(intervals.items()):
            then = get_site_throughout(state, site_id, start_ms=start_ms, end_ms=start_ms)
            batteries.store(
                state,
                self.meter,
                charge_id,
                end_ms=start_ms + length_ms,
                charged_wh=wh,
                efficiency_per_mille=then.efficiency_per_mille,
            )
