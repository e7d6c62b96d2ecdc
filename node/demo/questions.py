"""The questions at the end: who bought this plant's output, where did this buyer's energy come from, is all conserved.

Owns the answers as the nodes give them, reduced to what the summary shows; every sum is computed again here and
compared with the node's.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Final

from contracts_native.claims import compute_matching_score
from ledger.fields import Json
from node.client import Answer
from node.demo.data import format_day
from node.demo.stage import Stage

PERCENT: Final = 100
SCORES_PER_PER_MILLE: Final = 10


async def ask_all(stage: Stage) -> None:
    """Ask, compare, and keep the answers for the summary."""
    with stage.narrator.step("Questions", 5) as step:
        for ask in (ask_plant, ask_buyer, ask_audit, ask_nodes, ask_figures):
            await ask(stage)
            step.advance()
        step.text = (
            "who bought one plant's output, where one buyer's energy came from, what is conserved, what all agree on"
        )


async def ask_plant(stage: Stage) -> None:
    """Who has one plant's output; the sum is what its meter signed."""
    plant = stage.pick_producer()
    answer: Answer = await stage.network.ask().trace_source(site=stage.site_ids[plant.place.name])
    rows = answer["rows"]
    compare = stage.checks.compare
    compare(
        "Σ of all who have the plant's output = metered",
        sum(row["wh"] for row in rows),
        answer["metered_wh"],
        unit="Wh",
    )
    compare("metered by the plant = in the meter file", answer["metered_wh"], sum(plant.place.values_wh), unit="Wh")
    names = {one.address_text: one.place for one in stage.cast.owners.values()}
    shown: list[Json] = [
        {
            "name": names[row["participant"]].label if row["participant"] in names else row["label"],
            "is_owner": row["participant"] == plant.address_text,
            "claimed_wh": row["claimed_wh"],
            "held_wh": row["held_wh"],
            "wh": row["wh"],
        }
        for row in rows
    ]
    stage.facts["plant"] = {
        "name": plant.place.label,
        "site": answer["site"],
        "metered_wh": answer["metered_wh"],
        "rows": shown,
    }


async def ask_buyer(stage: Stage) -> None:
    """Where one buyer's energy came from, by source and by hour, and how well it matches its consumption."""
    buyer = stage.pick_buyer()
    answer: Answer = await stage.network.ask().trace_holder(buyer.address_text)
    consumption = answer["consumption"]
    by_hour: dict[int, Counter[str]] = defaultdict(Counter)
    for source in answer["sources"]:
        for hour in source["hours"]:
            by_hour[hour["start_ms"]][source["technology"]] += hour["claimed_wh"]
    hours: list[Json] = [
        {
            "start_ms": hour["start_ms"],
            "day": format_day(hour["start_ms"]),
            "consumed_wh": hour["consumed_wh"],
            "claimed_wh": hour["claimed_wh"],
            "sources_wh": dict(by_hour[hour["start_ms"]]),
        }
        for hour in consumption["hours"]
    ]
    differing = sum(sum(by_hour[hour["start_ms"]].values()) != hour["claimed_wh"] for hour in consumption["hours"])
    sources: list[Json] = [
        {"name": source["label"], "technology": source["technology"], "wh": source["claimed_wh"]}
        for source in sorted(answer["sources"], key=lambda one: -one["claimed_wh"])
    ]
    score = compute_matching_score(
        [hour["consumed_wh"] for hour in consumption["hours"]], [hour["claimed_wh"] for hour in consumption["hours"]]
    )
    compare = stage.checks.compare
    sources_wh = sum(source["claimed_wh"] for source in answer["sources"])
    compare("Σ of the buyer's sources = claimed by the buyer", sources_wh, answer["claimed_wh"], unit="Wh")
    compare(
        "consumption of the buyer = in the meter file",
        consumption["consumed_wh"],
        sum(buyer.place.values_wh),
        unit="Wh",
    )
    compare("hours whose sources differ from what was claimed", differing, 0)
    compare(
        "matching score, computed again = the node's",
        score // SCORES_PER_PER_MILLE,
        consumption["matching_score_per_mille"],
        unit="‰",
    )
    stage.facts["buyer"] = {
        "name": buyer.place.label,
        "participant": answer["participant"],
        "consumed_wh": consumption["consumed_wh"],
        "claimed_wh": answer["claimed_wh"],
        "matching_score_per_mille": consumption["matching_score_per_mille"],
        "sources": sources,
        "hours": hours,
    }


async def ask_audit(stage: Stage) -> None:
    """The conservation sums, each with its two sides; they are added up and compared again here."""
    answer: Answer = await stage.network.ask().chain_audit()
    for one in answer["sums"]:
        left, right = sum(one["left_parts"].values()), sum(one["right_parts"].values())
        title = f"conserved: {one['name'].replace('_', ' ')}"
        stage.checks.compare(title, left, right, relation=one["relation"], unit=one["unit"].replace("wh", "Wh"))
    stage.checks.compare("objects at fault in the audit", sum(one["faults_count"] for one in answer["sums"]), 0)
    stage.facts["audit"] = answer


async def ask_nodes(stage: Stage) -> None:
    """Every node's state root at one height that all have."""
    network = stage.network
    indices = sorted(network.live)
    height = min([await network.get_height(index) for index in indices])
    rows: list[Json] = []
    roots: set[str] = set()
    for index in indices:
        status: Answer = await network.ask(index).chain_status()
        block: Answer = await network.ask(index).chain_block(height=height)
        roots.add(block["header"]["state_root"])
        rows.append(
            {
                "node": status["moniker"],
                "url": network.urls[index],
                "height": status["height"],
                "block_id": block["block_id"],
                "state_root": block["header"]["state_root"],
                "signatures": len(block["certificate"]["signatures"]),
            }
        )
    stage.checks.compare("validators that answer", len(rows), stage.testnet.count)
    stage.checks.compare(f"different state roots among them at height {height}", len(roots), 1)
    stage.facts["nodes"] = {"height": height, "rows": rows}


async def ask_figures(stage: Stage) -> None:
    """How much it was, and how long finality took."""
    network = stage.network
    lone_ms, batch_ms = (network.list_finality_ms(is_lone=is_lone) for is_lone in (True, False))
    stage.facts["figures"] = {
        "transactions": network.transactions,
        "intervals": stage.community.intervals,
        "slices_traded": sum(len(sale.parts) for sale in stage.sales),
        "claims": len(stage.hours),
        "height": await network.get_height(0),
        "finality_lone_ms": _show_quantiles(lone_ms),
        "finality_load_ms": _show_quantiles(batch_ms),
    }


def get_quantile(rising: list[int], percent: int) -> int:
    """The smallest value that ``percent`` of the values do not exceed; 0 for none."""
    return rising[max(0, -(-len(rising) * percent // PERCENT) - 1)] if rising else 0


def _show_quantiles(rising: list[int]) -> dict[str, Json]:
    return {"count": len(rising), "median": get_quantile(rising, 50), "p99": get_quantile(rising, 99)}
