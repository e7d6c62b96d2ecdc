"""A solar roof's day: sign its readings, sell an hour of it, use it, and ask the ledger who has what.

    wattprint testnet start --detach
    python examples/who_bought_it.py

Plays a day of a real plant (examples/data) as if it were yesterday, since lots of a new chain expire after two years.
The keys are those of the test network's keyring.
"""

from __future__ import annotations

import csv
import os
import secrets
import sys
from pathlib import Path

from contracts_native.claims import ClaimEnergy
from contracts_native.lots import FIRST_VERSION, LotId, SliceRef, TransferEnergy
from contracts_native.meters import Channel, ChannelSpec, RegisterMeter, compute_meter_id
from contracts_native.readings import UNSIGNED, Flag, Report, SubmitReadings, sign_report
from contracts_native.sites import RegisterSite, Technology
from ledger.transaction import make_object_id
from node.client import SyncClient
from node.keystore import MeterSigningKey, load_signing_key

DATA = Path(__file__).parent / "data" / "pv_serf_east_2016_15min.csv"
INTERVAL_S = 900
DAY_ROWS = 96
DAY_MS = 86_400_000
CAPACITY_W = 6_000

URL = os.environ.get("WATTPRINT_NODE", "http://127.0.0.1:8600")


def read_day() -> list[int]:
    """A day of the file in quarter-hours, Wh."""
    rows = list(csv.DictReader(DATA.read_text().splitlines()))
    first = next(index for index, row in enumerate(rows) if row["start_utc"].endswith("T00:00:00Z"))
    return [int(row["production_wh"]) for row in rows[first : first + DAY_ROWS]]


def main(url: str = URL, keyring: str = "testnet/keyring") -> None:
    """Play it against the node at ``url``."""
    utility, owner, buyer = (
        load_signing_key(Path(keyring) / f"{name}.key.json") for name in ("utility", "prosumer", "consumer")
    )
    values_wh = read_day()
    with SyncClient(url) as client:
        status = client.chain_status()
        start_ms = (status["block_time_ms"] // DAY_MS - 1) * DAY_MS
        # The utility registers the roof and its meter; the owner countersigns both.
        site = RegisterSite(owner.address, Technology.SOLAR, "US-CO", CAPACITY_W, "SERF East", start_ms)
        registered = client.submit(site, key=utility, cosigners=[owner])
        site_id = make_object_id("site", bytes.fromhex(registered.tx_id))
        meter_key, serial = MeterSigningKey.generate("p256"), f"SERF-{secrets.token_hex(4)}"
        channel = ChannelSpec(Channel.PRODUCTION, CAPACITY_W, INTERVAL_S)
        meter = RegisterMeter(site_id, serial, meter_key.public_key, (channel,), start_ms)
        client.submit(meter, key=utility, cosigners=[owner])
        meter_id = compute_meter_id(utility.address, serial)

        # One signature of the meter covers the day; each quarter-hour with sun becomes a lot of the owner's.
        day = Report(
            meter=meter_id,
            channel=Channel.PRODUCTION,
            sequence=1,
            start_ms=start_ms,
            interval_s=INTERVAL_S,
            values_wh=tuple(values_wh),
            register_start_wh=0,
            register_end_wh=sum(values_wh),
            flag=Flag.MEASURED,
            signature=UNSIGNED,
        )
        client.submit(SubmitReadings((sign_report(day, status["chain_id"], meter_key.sign),)), key=owner)

        # Half of the best quarter-hour goes to the buyer, who uses half of that.
        best = max(range(DAY_ROWS), key=values_wh.__getitem__)
        lot_start_ms = start_ms + best * INTERVAL_S * 1_000
        lot, half_wh = LotId(meter_id, lot_start_ms, FIRST_VERSION), values_wh[best] // 2
        client.submit(TransferEnergy(buyer.address, (SliceRef(lot, 0, half_wh),), "a sunny quarter-hour"), key=owner)
        claim = ClaimEnergy(
            slices=(SliceRef(lot, 0, half_wh // 2),),
            beneficiary=buyer.address,
            purpose="own use",
            period_start_ms=lot_start_ms,
            period_end_ms=lot_start_ms + INTERVAL_S * 1_000,
            statement=f"example {serial}",
        )
        client.submit(claim, key=buyer)

        answer = client.trace_source(site=site_id.hex())
        for row in answer["rows"]:
            print(f"{row['label']:<10} has used {row['claimed_wh']:>6,} Wh and holds {row['held_wh']:>6,} Wh")
        total_wh = sum(row["wh"] for row in answer["rows"])
        print(f"together   {total_wh:,} Wh; the meter signed for {answer['metered_wh']:,} Wh")
        assert total_wh == answer["metered_wh"] == sum(values_wh)


if __name__ == "__main__":
    main(*sys.argv[1:])
