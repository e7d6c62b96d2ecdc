"""The first steps: people, sites and meters become known to the ledger, and the meters report.

Owns the checks that what stands on the ledger is what the data file says, watt-hour for watt-hour.
"""

from __future__ import annotations

from typing import Final

from contracts_native.readings import Report, SubmitReadings
from ledger.transaction import make_object_id
from node.demo.data import QUARTERS_PER_DAY
from node.demo.network import Order
from node.demo.people import make_meter, make_registration, make_site
from node.demo.stage import Stage
from node.keystore import Scheme

KINDS_OF_KEYS: Final[dict[Scheme, str]] = {"ed25519": "Ed25519", "p256": "P-256"}


async def register_people(stage: Stage) -> None:
    """Everyone with a meter: registered by the utility; sites and meters are countersigned by their owners."""
    cast, network = stage.cast, stage.network
    people = [*cast.producers, *cast.consumers]
    with stage.narrator.step("The community", 3 * len(people)) as step:
        utility = cast.utility.address
        registrations = [make_registration(one, chain_id=network.chain_id, utility=utility) for one in people]
        await network.submit_all([Order(one, cast.utility) for one in registrations], step.advance)
        sites = await network.submit_all(
            [Order(make_site(one), cast.utility, (one.key,)) for one in people], step.advance
        )
        ids = [make_object_id("site", bytes.fromhex(one.tx_id)) for one in sites]
        stage.site_ids = {one.place.name: site.hex() for one, site in zip(people, ids, strict=True)}
        meters = [
            Order(make_meter(one, site=site), cast.utility, (one.key,)) for one, site in zip(people, ids, strict=True)
        ]
        await network.submit_all(meters, step.advance)
        schemes = [one.meter.key.scheme for one in people]
        counts = " and ".join(f"{schemes.count(scheme)} {name}" for scheme, name in KINDS_OF_KEYS.items())
        step.text = (
            f"{len(cast.producers)} producers and {len(cast.consumers)} consumers registered by their utility; "
            f"{len(sites)} sites countersigned; {len(meters)} meters, each with its own key: {counts}"
        )


async def submit_readings(stage: Stage) -> None:
    """Each meter signs each day once; the days of all meters travel in one transaction each."""
    community, people = stage.community, [*stage.cast.producers, *stage.cast.consumers]
    with stage.narrator.step("Signed readings", community.days) as step:
        for day in range(community.days):
            start_ms = community.get_start_ms(day * QUARTERS_PER_DAY)
            reports: list[Report] = []
            for one in people:
                values_wh = one.place.get_day_wh(day)
                report = one.meter.count(stage.network.chain_id, start_ms=start_ms, values_wh=values_wh)
                stage.last_reports[one.place.name] = report
                reports.append(report)
            await stage.network.submit_all([Order(SubmitReadings(tuple(reports)), stage.cast.oracle)], step.advance)
        metered_wh, minted_wh = await _compare_production(stage)
        await _compare_consumption(stage)
        step.text = (
            f"{community.intervals:,} quarter-hours under {len(people) * community.days} meter signatures, in "
            f"{community.days} transactions; {metered_wh:,} Wh of production metered, {minted_wh:,} minted as lots"
        )


async def _compare_production(stage: Stage) -> tuple[int, int]:
    metered_wh = minted_wh = plants_right = 0
    for one in stage.cast.producers:
        answer = await stage.network.ask().trace_source(site=stage.site_ids[one.place.name])
        metered_wh += answer["metered_wh"]
        minted_wh += answer["minted_wh"]
        plants_right += answer["metered_wh"] == sum(one.place.values_wh)
    file_wh = sum(sum(one.values_wh) for one in stage.community.producers)
    compare = stage.checks.compare
    compare("production on the ledger = in the meter file", metered_wh, file_wh, unit="Wh")
    compare("plants that agree with the file, each by itself", plants_right, len(stage.cast.producers))
    compare("production minted as lots = metered", minted_wh, metered_wh, unit="Wh")
    return metered_wh, minted_wh


async def _compare_consumption(stage: Stage) -> None:
    consumed_wh = 0
    for one in stage.cast.consumers:
        answer = await stage.network.ask().trace_holder(one.address_text)
        consumed_wh += answer["consumption"]["consumed_wh"]
    file_wh = sum(sum(one.values_wh) for one in stage.community.consumers)
    stage.checks.compare("consumption on the ledger = in the meter file", consumed_wh, file_wh, unit="Wh")
