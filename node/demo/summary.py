"""The summary that a person reads: tables, a chart by the hour, and every check with its verdict.

Owns only the look. It is a function of the demo's document, all of which came from the nodes; 80 to 100 columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ledger.fields import Json

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
HOURS: Final = 24
MS_PER_S: Final = 1_000
COLOURS: Final = {"solar": "yellow", "hydro": "blue", "wind": "cyan", "biomass": "green"}
LETTERS: Final = {"solar": "S", "hydro": "H", "wind": "W", "biomass": "B"}
EIGHTHS: Final = " ▁▂▃▄▅▆▇█"
BAR_WIDTH: Final = 24
HOUR_BAR_WIDTH: Final = 56
HOUR_BAR_WIDTH_NARROW: Final = 38
ROOT_WIDTH_NARROW: Final = 40
WIDE: Final = 96  # columns that a screen must have for the wide charts
BUYERS_SHOWN: Final = 12
DAY_WIDTH: Final = 13
ITEM_WIDTH: Final = 30

Facts = dict[str, Any]  # JSON has no static shape


def render_summary(document: dict[str, Json], console: Console) -> None:
    """Print every section; ``document`` is what the demo returns with ``--json``."""
    facts: Facts = document
    days, refusals, nodes, checks = (
        partial(section, width=console.width) for section in (_days, _refusals, _nodes, _checks)
    )
    for section in (_plant, _buyer, days, refusals, _outage, _audit, nodes, _figures, checks, _verdict):
        for part in section(facts):
            console.print(Padding(part, (0, 0, 0, 1)) if isinstance(part, Table) else part, highlight=False)


def _plant(facts: Facts) -> Iterator[Text | Table]:
    plant = facts["plant"]
    yield _title(f"Who bought the output of {plant['name']}?")
    table = _table("who", "used Wh", "held Wh", "sum Wh", "share", "", numbers=(1, 2, 3, 4))
    metered_wh = plant["metered_wh"]
    rows = sorted(plant["rows"], key=lambda row: (row["is_owner"], -row["wh"]))
    shown, rest = rows[:BUYERS_SHOWN], [row for row in rows[BUYERS_SHOWN:] if not row["is_owner"]]
    owner = [row for row in rows[BUYERS_SHOWN:] if row["is_owner"]]
    if rest:
        sums = {name: sum(row[name] for row in rest) for name in ("claimed_wh", "held_wh", "wh")}
        shown = [*shown, {"name": f"{len(rest)} more buyers", "is_owner": False, **sums}]
    for row in [*shown, *owner]:
        name = f"{row['name']} (the owner, unsold)" if row["is_owner"] else row["name"]
        bar = Text("█" * _scale(row["wh"], metered_wh, BAR_WIDTH), style="yellow")
        table.add_row(name, _n(row["claimed_wh"]), _n(row["held_wh"]), _n(row["wh"]), _pc(row["wh"], metered_wh), bar)
    table.add_section()
    sums_wh = [sum(row[name] for row in plant["rows"]) for name in ("claimed_wh", "held_wh", "wh")]
    table.add_row("Σ", *map(_n, sums_wh), _pc(sums_wh[2], metered_wh), "", style="bold")
    table.add_row("metered, signed by the meter", "", "", _n(metered_wh), "", "", style="bold")
    yield table


def _buyer(facts: Facts) -> Iterator[Text | Table]:
    buyer = facts["buyer"]
    yield _title(f"Where did the energy of {buyer['name']} come from?")
    table = _table("source", "kind", "used Wh", "of consumption", "", numbers=(2, 3))
    for source in buyer["sources"]:
        colour = COLOURS[source["technology"]]
        bar = Text("█" * _scale(source["wh"], buyer["consumed_wh"], BAR_WIDTH), style=colour)
        share = _pc(source["wh"], buyer["consumed_wh"])
        table.add_row(source["name"], Text(source["technology"], style=colour), _n(source["wh"]), share, bar)
    table.add_section()
    share = _pc(buyer["claimed_wh"], buyer["consumed_wh"])
    table.add_row("Σ", "", _n(buyer["claimed_wh"]), share, "", style="bold")
    table.add_row("consumed, signed by the meter", "", _n(buyer["consumed_wh"]), "100.0 %", "", style="bold")
    yield table


def _days(facts: Facts, *, width: int) -> Iterator[Text | Table]:
    buyer = facts["buyer"]
    days: dict[str, dict[int, Facts]] = {}
    cell, bar = (3, HOUR_BAR_WIDTH) if width >= WIDE else (2, HOUR_BAR_WIDTH_NARROW)
    for hour in buyer["hours"]:
        days.setdefault(hour["day"], {})[hour["start_ms"] % DAY_MS // HOUR_MS] = hour
    first_day = next(iter(days))
    yield _title(f"Hour by hour (UTC) on {first_day}: what {buyer['name']} consumed, and from where")
    yield _legend()
    for hour_of_day, hour in sorted(days[first_day].items()):
        yield _hour_line(hour_of_day, hour, bar)
    yield _title("Every hour: its largest source, and the part of consumption that is matched")
    yield Text(
        " " * DAY_WIDTH + "".join(f"{hour:<{2 * cell}}" for hour in range(0, HOURS, 2)) + "  matched", style="dim"
    )
    for day, hours in days.items():
        line = Text(f" {day:<{DAY_WIDTH - 1}}")
        for hour_of_day in range(HOURS):
            line.append_text(_cell(hours.get(hour_of_day), cell))
        line.append(f" {_pc(*_sum_matched(hours.values())):>8}", style="bold")
        yield line
    score = buyer["matching_score_per_mille"]
    label = f"{' matching score, hour by hour, over all days':<{DAY_WIDTH + cell * HOURS}}"
    yield Text(f"{label} {f'{score // 10}.{score % 10} %':>8}", style="bold")


def _hour_line(hour_of_day: int, hour: Facts, bar: int) -> Text:
    """One hour as a bar: its sources in their colours and letters, then what is not matched."""
    line = Text(f" {hour_of_day:02}:00 ")
    consumed_wh, before_wh = max(1, hour["consumed_wh"]), 0
    for kind, letter in LETTERS.items():
        wh = hour["sources_wh"].get(kind, 0)
        # From running sums, so that rounding neither lengthens nor shortens the bar.
        width = _scale(before_wh + wh, consumed_wh, bar) - _scale(before_wh, consumed_wh, bar)
        before_wh += wh
        line.append(letter * width, style=f"black on {COLOURS[kind]}")
    line.append("·" * (bar - _scale(before_wh, consumed_wh, bar)), style="dim")
    line.append(f" {hour['claimed_wh']:>6,} of {hour['consumed_wh']:>6,} Wh")
    line.append(f" {_pc(min(hour['claimed_wh'], hour['consumed_wh']), consumed_wh):>8}", style="bold")
    return line


def _cell(hour: Facts | None, width: int) -> Text:
    """The letter of the largest source, and a block as high as the matched part."""
    if hour is None or not hour["claimed_wh"]:
        return Text(f"{'·':<{width}}", style="dim")
    sources_wh: dict[str, int] = hour["sources_wh"]
    kind = max(sources_wh, key=sources_wh.__getitem__)
    covered_wh = min(hour["claimed_wh"], hour["consumed_wh"])
    block = EIGHTHS[max(1, _scale(covered_wh, hour["consumed_wh"], len(EIGHTHS) - 1))]
    return Text(f"{LETTERS[kind] + block:<{width}}", style=COLOURS[kind])


def _legend() -> Text:
    line = Text(" ")
    for kind, letter in LETTERS.items():
        line.append(f"{letter} {kind}  ", style=COLOURS[kind])
    return line.append("· consumption that nothing was bought for", style="dim")


def _refusals(facts: Facts, *, width: int) -> Iterator[Text | Table]:
    yield _title("What was tried and refused")
    columns = ("attempt", "the ledger's reason", "at fault")[: 3 if width >= WIDE else 2]
    table = _table(*columns, numbers=())
    for row in facts["refusals"]:
        item = row["item"] if len(row["item"]) <= ITEM_WIDTH else row["item"][: ITEM_WIDTH - 1] + "…"
        cells = (row["title"], Text(row["reason"], style="red"), Text(item, style="dim"))
        table.add_row(*cells[: len(columns)])
    yield table


def _outage(facts: Facts) -> Iterator[Text | Table]:
    lost = facts["outage"]
    yield _title(f"kill -9 of node{lost['node']} (process {lost['pid']}) while claims went on")
    table = _table("when", "height", numbers=(1,))
    table.add_row(f"node{lost['node']} is killed", _n(lost["killed_at_height"]))
    table.add_row("the other three have gone on to", _n(lost["others_at_height"]))
    seconds = f"{lost['caught_up_ms'] // MS_PER_S}.{lost['caught_up_ms'] % MS_PER_S // 100} s"
    table.add_row(f"it is back and has caught up, {seconds} after its start", _n(lost["caught_up_at_height"]))
    yield table


def _audit(facts: Facts) -> Iterator[Text | Table]:
    audit = facts["audit"]
    yield _title(f"Conservation, audited by node0 at height {audit['height']:,}")
    table = _table("sum", "left", "", "right", "unit", "", numbers=(1, 3))
    for one in audit["sums"]:
        name = one["name"].replace("_", " ")
        unit = one["unit"].replace("wh", "Wh")
        table.add_row(name, _n(one["left"]), one["relation"], _n(one["right"]), unit, _mark(holds=one["holds"]))
    yield table


def _nodes(facts: Facts, *, width: int) -> Iterator[Text | Table]:
    nodes = facts["nodes"]
    yield _title(f"The validators at height {nodes['height']:,}")
    table = _table("node", "block", "state root", numbers=())
    for row in nodes["rows"]:
        root = row["state_root"] if width >= WIDE else row["state_root"][:ROOT_WIDTH_NARROW] + "…"
        table.add_row(row["node"], row["block_id"][:16] + "…", root)
    yield table


def _figures(facts: Facts) -> Iterator[Text | Table]:
    figures = facts["figures"]
    yield _title("Figures")
    table = _table("", "", numbers=(1,))
    for name, label in (
        ("transactions", "transactions, all final"),
        ("intervals", "quarter-hours, signed by meters"),
        ("slices_traded", "slices sold"),
        ("claims", "hourly claims"),
        ("height", "blocks"),
    ):
        table.add_row(label, _n(figures[name]))
    for name, label in (("finality_lone_ms", "alone"), ("finality_load_ms", "in batches under load")):
        one = figures[name]
        table.add_row(f"finality {label}, median of {one['count']:,}", f"{one['median']:,} ms")
        table.add_row(f"finality {label}, 99th percentile", f"{one['p99']:,} ms")
    yield table


def _checks(facts: Facts, *, width: int) -> Iterator[Text | Table]:
    yield _title("Every check")
    for one in facts["checks"]:
        is_word = isinstance(one["left"], str) and one["left"] == one["right"]
        sides = _value(one["left"]) if is_word else f"{_value(one['left'])} {one['relation']} {_value(one['right'])}"
        line = Text(" ").append_text(_mark(holds=one["holds"])).append(f" {one['title']}")
        line.append(f"  {sides} {one['unit']}".rstrip(), style="dim")
        line.truncate(width, overflow="ellipsis")
        yield line


def _verdict(facts: Facts) -> Iterator[Text | Table]:
    failed = [one["title"] for one in facts["checks"] if not one["holds"]]
    seconds = f"{facts['elapsed_ms'] // MS_PER_S}.{facts['elapsed_ms'] % MS_PER_S // 100} s"
    yield Text("")
    if failed:
        yield Text(
            f" ✗ {len(failed)} of {len(facts['checks'])} checks do not hold: {'; '.join(failed)}", style="bold red"
        )
    else:
        yield Text(f" ✓ All {len(facts['checks'])} checks hold, after {seconds}.", style="bold green")


def _title(text: str) -> Text:
    return Text(f"\n {text}", style="bold")


def _table(*columns: str, numbers: Iterable[int]) -> Table:
    """A table without walls; ``numbers`` are the columns that go to the right. On a narrow screen the first wraps."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim", show_header=any(columns))
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if index in numbers else "left", no_wrap=index > 0)
    return table


def _mark(*, holds: bool) -> Text:
    return Text("✓", style="bold green") if holds else Text("✗", style="bold red")


def _value(value: int | str) -> str:
    """A number with its thousands; of a hash its beginning."""
    if isinstance(value, int):
        return _n(value)
    return value if len(value) < 64 else value[:12] + "…"


def _n(value: int) -> str:
    return f"{value:,}"


def _pc(part: int, whole: int) -> str:
    """A share in percent with one decimal, rounded down."""
    per_mille = part * 1_000 // whole if whole else 0
    return f"{per_mille // 10}.{per_mille % 10} %"


def _scale(part: int, whole: int, width: int) -> int:
    return min(width, (2 * part * width + whole) // (2 * whole)) if whole else 0


def _sum_matched(hours: Iterable[Facts]) -> tuple[int, int]:
    """(Matched, consumed) Wh."""
    pairs = [(min(hour["claimed_wh"], hour["consumed_wh"]), hour["consumed_wh"]) for hour in hours]
    return sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
