"""Claim statements: what a beneficiary claimed in a period, from which sources, as utilities file it.

Owns the lines and sums of a statement and its printable form. Every claim is in exactly one of two adjoining
statements: it belongs to the period that its own period begins in.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

from ledger.errors import Rejected
from ledger.fields import Json
from node.exports import Answer, Ask, iterate_pages
from node.meter_files.instants import format_utc

CLAIMS_MAX: Final = 10_000  # of one statement
USE: Final = "use"  # the kind of claims that are no charge of a storage
Line = Mapping[str, Json]


async def make_statement(ask: Ask, *, participant: str, from_ms: int, until_ms: int) -> dict[str, Any]:
    """The statement as a document: ``lines`` (one for each claim and source) and sums.

    What counts is in ``claimed_wh`` and in each line's ``wh``. What claims lost since, because energy or consumption
    was corrected or the claim is void, is in ``lost_wh``; a claim that makes it good has lines of its own. Raises
    ``Rejected`` (``period_too_long``), and what the questions raise.
    """
    who = await ask("participant_get", {"participant": participant})
    lines: list[dict[str, Json]] = []
    claims = 0
    async for claim in iterate_pages(ask, "claim_list", "claims", {"beneficiary": participant}):
        if claim["kind"] != USE or not from_ms <= claim["period_start_ms"] < until_ms:
            continue
        claims += 1
        if claims > CLAIMS_MAX:
            raise Rejected("period_too_long", f"more than {CLAIMS_MAX} claims")
        lines += await _list_lines(ask, claim)
    period: dict[str, Json] = {"from_ms": from_ms, "until_ms": until_ms}
    consumption = (await ask("trace_holder", {"participant": participant, **period, "limit": 1}))["consumption"]
    return {
        "participant": participant,
        "label": who["label"],
        **period,
        "claims": claims,
        "claimed_wh": _sum(lines),
        "hourly_wh": _sum(line for line in lines if line["matching"] == "hourly"),
        "volumetric_wh": _sum(line for line in lines if line["matching"] == "volumetric"),
        "lost_wh": _sum(lines, "lost_wh"),
        "consumed_wh": consumption["consumed_wh"],
        "matching_score_per_mille": consumption["matching_score_per_mille"],
        "by_technology": dict(_group(lines, "technology")),
        "by_zone": dict(_group(lines, "zone")),
        "lines": lines,
    }


async def _list_lines(ask: Ask, claim: Answer) -> list[dict[str, Json]]:
    """A line for each source of a claim."""
    whole = await ask("claim_get", {"claim": claim["claim"]})
    by_source: defaultdict[tuple[str, str, str, str], list[Answer]] = defaultdict(list)
    by_meter: defaultdict[str, list[Answer]] = defaultdict(list)
    for one in whole["slices"]:
        by_meter[one["lot"].partition(":")[0]].append(one)
    for meter, slices in by_meter.items():
        for one, lot in await _find_lots(ask, slices):
            by_source[lot["site"], meter, lot["technology"], lot["zone"]].append({**one, "start_ms": lot["start_ms"]})
    lines = []
    for (site, meter, technology, zone), slices in sorted(by_source.items()):
        starts = [one["start_ms"] for one in slices]
        lost_wh = sum(one["lost_wh"] for one in slices)
        about = await ask("site_get", {"site": site})
        lines.append(
            {
                "statement": claim["statement"],
                "claim": claim["claim"],
                "status": claim["status"],
                "purpose": claim["purpose"],
                "matching": "hourly" if claim["is_hourly"] else "volumetric",
                "period_start_ms": claim["period_start_ms"],
                "period_end_ms": claim["period_end_ms"],
                "claimed_ms": claim["claimed_ms"],
                "source": about["label"],
                "site": site,
                "meter": meter,
                "technology": technology,
                "zone": zone,
                "first_start_ms": min(starts),
                "last_start_ms": max(starts),
                "lots": len(slices),
                "wh": sum(one["end_wh"] - one["first_wh"] for one in slices) - lost_wh,
                "lost_wh": lost_wh,
            }
        )
    return lines


async def _find_lots(ask: Ask, slices: Sequence[Answer]) -> list[tuple[Answer, Answer]]:
    """Each slice of one meter with its lot's site, technology, zone and start.

    A site changes its zone seldom: when the first and the last lot agree, those between are not asked for.
    """
    ordered = sorted(slices, key=lambda one: int(one["lot"].split(":")[1]))
    first, last = [await ask("lot_get", {"lot": one["lot"]}) for one in (ordered[0], ordered[-1])]
    found = []
    for one in ordered:
        lot = first if first["zone"] == last["zone"] else await ask("lot_get", {"lot": one["lot"]})
        found.append((one, {**lot, "start_ms": int(one["lot"].split(":")[1])}))
    return found


def _sum(lines: Iterable[Mapping[str, Any]], name: str = "wh") -> int:
    return sum(line[name] for line in lines)


def _group(lines: Sequence[Line], name: str) -> Counter[str]:
    sums: Counter[str] = Counter()
    for line in lines:
        wh = line["wh"]
        assert isinstance(wh, int)
        sums[str(line[name])] += wh
    return sums


def format_mwh(wh: int) -> str:
    """Wh as MWh with all six places: statements are filed in MWh."""
    return f"{wh // 1_000_000:,}.{wh % 1_000_000:06}"


def format_count(count: int, name: str) -> str:
    """A number of things, in the singular or in the plural."""
    return f"{count:,} {name}{'' if count == 1 else 's'}"


def format_day(time_ms: int) -> str:
    """A time in UTC, to the minute."""
    return format_utc(time_ms)[:16].replace("T", " ")


_STYLE: Final = """
body { font: 15px/1.5 Georgia, serif; color: #1b1b1b; max-width: 60rem; margin: 3rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .4rem; }
table { border-collapse: collapse; width: 100%; font: 13px/1.4 system-ui, sans-serif; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid #d8d8d8; vertical-align: top; }
th { border-bottom: 2px solid #1b1b1b; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tfoot td { font-weight: 600; border-top: 2px solid #1b1b1b; } code { font-size: 11px; word-break: break-all; }
.no { color: #8a1c1c; } .small { color: #555; font-size: 13px; }
@media print { body { margin: 0; max-width: none; } }
"""


def make_page(statement: Mapping[str, Any]) -> str:
    """The statement as one printable HTML page that needs nothing else."""
    period = f"{format_day(statement['from_ms'])} to {format_day(statement['until_ms'])} UTC"
    rows = "".join(_make_row(line) for line in statement["lines"])
    score = statement["matching_score_per_mille"]
    matched = "no consumption is recorded" if score is None else f"{score // 10}.{score % 10} % hour by hour"
    sums = "".join(
        f"<tr><td>{escape(name)}</td><td class=n>{format_mwh(wh)}</td></tr>"
        for name, wh in (
            ("Claimed, matched hour by hour", statement["hourly_wh"]),
            ("Claimed by volume", statement["volumetric_wh"]),
            *((f"of it {name}", wh) for name, wh in sorted(statement["by_technology"].items())),
            *((f"of it from {name}", wh) for name, wh in sorted(statement["by_zone"].items())),
            ("No longer counted: corrected since, or void", statement["lost_wh"]),
        )
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Claim statement, {escape(statement["label"])}</title>
<style>{_STYLE}</style>
<h1>Claim statement</h1>
<p><b>{escape(statement["label"])}</b><br><code>{escape(statement["participant"])}</code><br>{period}</p>
<h2>In all: {format_mwh(statement["claimed_wh"])} MWh in {format_count(statement["claims"], "claim")}</h2>
<table><thead><tr><th></th><th class=n>MWh</th></tr></thead><tbody>{sums}</tbody></table>
<p class=small>Own consumption {format_mwh(statement["consumed_wh"])} MWh; matched: {matched}.</p>
<h2>Claims and their sources</h2>
<table><thead><tr><th>Statement</th><th>Period</th><th>Source</th><th>Produced</th><th>Matching</th>
<th class=n>MWh</th></tr></thead><tbody>{rows}</tbody>
<tfoot><tr><td colspan=5>Counted</td><td class=n>{format_mwh(statement["claimed_wh"])}</td></tr></tfoot></table>
<p class=small>Times are UTC. Each claim is on the ledger under its id, cancelled once and for this beneficiary only;
a certificate of provenance proves it without this document.</p>
</html>
"""


def _make_row(line: Mapping[str, Any]) -> str:
    lost = f"<br><span class=no>−{format_mwh(line['lost_wh'])} {line['status']}</span>" if line["lost_wh"] else ""
    period = f"{format_day(line['period_start_ms'])}<br>{format_day(line['period_end_ms'])}"
    produced = f"{format_day(line['first_start_ms'])}<br>{format_day(line['last_start_ms'])}"
    source = f"{escape(line['source'])}<br>{escape(line['technology'])}, {escape(line['zone'])}"
    return (
        f"<tr><td>{escape(line['statement'])}<br>{escape(line['purpose'])}<br><code>{line['claim']}</code></td>"
        f"<td>{period}</td><td>{source}</td><td>{produced}</td><td>{line['matching']}</td>"
        f"<td class=n>{format_mwh(line['wh'])}{lost}</td></tr>"
    )
