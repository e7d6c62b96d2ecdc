"""Traces as pictures: one HTML page with its drawing in it, which needs nothing from anywhere.

Owns the layout of three drawings: from a source to whoever has its output, from all sources to a holder and hour by
hour, and the ranges of a lot through its movements. Lengths are tenths of a pixel, whole numbers throughout.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, Final

from node.index import DAY_MS, HOUR_MS
from node.meter_files.instants import format_utc

WIDTH: Final = 11_200
FLOW_HEIGHT: Final = 4_600
GAP: Final = 170  # between the ends of two flows: room for a label of two lines
BAR: Final = 140
FLOWS_MAX: Final = 16  # ends that are drawn on their own; the rest is one
BARS_MAX: Final = 400
BARS_HEIGHT: Final = 2_600
LABEL_LETTERS_MAX: Final = 34
MOVEMENTS_MAX: Final = 60
HELD, CLAIMED, LOST = "#4f8f6b", "#2f5d8a", "#b4553d"
FATE_COLOURS: Final = {"held_wh": HELD, "claimed_wh": CLAIMED, "charged_wh": "#7a5ea8", "impaired_wh": LOST}
OTHER_COLOUR: Final = "#8f8f8f"
WORDS: Final = {
    "held_wh": "held",
    "claimed_wh": "claimed",
    "charged_wh": "into storage",
    "impaired_wh": "impaired",
    "withdrawn_wh": "withdrawn",
    "quarantined_wh": "quarantined",
    "not_minted_wh": "not minted",
}
FATES: Final = ("held_wh", "claimed_wh", "charged_wh", "impaired_wh", "withdrawn_wh")
SOURCE_COLOURS: Final = ("#e0b040", "#3b9a9c", "#a3763d", "#c46a8b", "#6b7f2a", "#8fa8d0", "#9c8aa5", "#d08a5b")


@dataclass(frozen=True, slots=True)
class Flow:
    """A band from the left to the right: what it is called there, and its parts as (word, Wh, colour)."""

    label: str
    note: str
    parts: tuple[tuple[str, int, str], ...]

    @property
    def wh(self) -> int:
        """How thick it is."""
        return sum(wh for _, wh, _ in self.parts)


@dataclass(slots=True)
class Drawing:
    """Shapes, bottom first."""

    height: int
    shapes: list[str] = field(default_factory=list)

    def rect(self, x: int, y: int, *, width: int, height: int, colour: str, title: str = "") -> None:
        """A box; ``title`` is shown under the pointer."""
        inner = f"<title>{escape(title)}</title>" if title else ""
        self.shapes.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{colour}">{inner}</rect>')

    def band(self, left: tuple[int, int], right: tuple[int, int], thick: int, colour: str, title: str) -> None:
        """A curved band from one upper edge to the other."""
        (x0, y0), (x1, y1) = left, right
        middle = (x0 + x1) // 2
        path = (
            f"M{x0} {y0}C{middle} {y0} {middle} {y1} {x1} {y1}"
            f"V{y1 + thick}C{middle} {y1 + thick} {middle} {y0 + thick} {x0} {y0 + thick}Z"
        )
        self.shapes.append(f'<path d="{path}" fill="{colour}" opacity=".45"><title>{escape(title)}</title></path>')

    def text(self, x: int, y: int, text: str, *, kind: str = "", anchor: str = "start") -> None:
        """A line of text; ``kind`` is a class of the page's style."""
        self.shapes.append(f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>')

    def finish(self, label: str) -> str:
        """The SVG element."""
        inner = "\n".join(self.shapes)
        return f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img" aria-label="{escape(label)}">\n{inner}\n</svg>'


def format_wh(wh: int) -> str:
    """Wh as people read it: exact below ten MWh, in whole kWh from there on."""
    if abs(wh) < 10_000:
        return f"{wh:,} Wh"
    if abs(wh) < 10_000_000:
        return f"{wh // 1_000:,}.{wh % 1_000:03} kWh"
    return f"{wh // 1_000_000:,}.{wh % 1_000_000 // 1_000:03} MWh"


def draw_source(answer: Mapping[str, Any], *, label: str) -> str:
    """The page of ``trace_source``: what was metered, and whoever has it."""
    flows = [
        Flow(str(row["label"]), _shorten(row["participant"]), _list_parts(row)) for row in answer["rows"] if row["wh"]
    ]
    flows += [
        Flow(WORDS[name], "", ((WORDS[name], answer[name], OTHER_COLOUR),))
        for name in ("quarantined_wh", "not_minted_wh")
        if answer[name]
    ]
    drawing = _draw_flows(label, flows, is_source_left=True)
    sums = [(name.removesuffix("_wh").replace("_", " "), answer[name]) for name in _SOURCE_SUMS]
    mark = "The sums are complete" if answer["holds"] else "THE SUMS ARE NOT COMPLETE"
    equation = f"{mark}: metered = minted − taken back + quarantined + not minted, and minted = Σ of all who have it."
    body = [drawing.finish(f"Flows from {label}"), _make_legend(answer["rows"]), _make_sums(sums), f"<p>{equation}</p>"]
    return _make_page(f"Who has the output of {label}", _format_period(answer), body)


_SOURCE_SUMS: Final = (
    "metered_wh",
    "minted_wh",
    "quarantined_wh",
    "not_minted_wh",
    "taken_back_wh",
    "held_wh",
    "claimed_wh",
)


def draw_holder(answer: Mapping[str, Any]) -> str:
    """The page of ``trace_holder``: where it came from, then the hours (or days) beside the holder's consumption."""
    label = str(answer["label"])
    flows = [
        Flow(str(one["label"]), f"{one['technology']}, {one['zone']}", _list_parts(one))
        for one in answer["sources"]
        if one["wh"]
    ]
    body = [
        _draw_flows(label, flows, is_source_left=False).finish(f"Flows to {label}"),
        _make_legend(answer["sources"]),
    ]
    body += _draw_hours(answer)
    consumption = answer["consumption"]
    sums = [("has or used", answer["wh"]), ("held", answer["held_wh"]), ("claimed", answer["claimed_wh"])]
    sums += [("consumed", consumption["consumed_wh"]), ("claimed hour by hour", consumption["claimed_hourly_wh"])]
    score = consumption["matching_score_per_mille"]
    matched = "" if score is None else f"<p>Matched hour by hour: {score // 10}.{score % 10} % of consumption.</p>"
    return _make_page(
        f"Where the energy of {label} came from", _format_period(answer), [*body, _make_sums(sums), matched]
    )


def draw_lot(answer: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """The page of ``trace_lot``: the ranges of a lot from its mint to today. ``names``: address → label."""
    wh = max(1, answer["wh"])
    rows: list[tuple[str, str, list[tuple[int, int, str, str]]]] = []

    def name(address: object) -> str:
        return names.get(str(address), _shorten(address))

    minted = [(one["first_wh"], one["end_wh"], HELD, name(one["holder"])) for one in answer["mint"]["slices"]]
    rows.append(("minted", format_utc(answer["mint"]["time_ms"]), minted))
    for one in answer["movements"][:MOVEMENTS_MAX]:
        if "first_wh" in one:
            who = one.get("recipient") or one.get("beneficiary") or one.get("holder") or one.get("operator")
            verb = str(one["event"]).partition(".")[2]
            colour = CLAIMED if verb in ("claimed", "charged") else LOST if verb == "withdrawn" else "#d9a520"
            moved = (one["first_wh"], one["end_wh"], colour, name(who))
            rows.append((verb, format_utc(one["time_ms"]), [moved]))
    today = [
        (
            one["first_wh"],
            one["end_wh"],
            {"active": HELD, "claimed": CLAIMED}.get(one["status"], OTHER_COLOUR),
            f"{name(one['holder'])}, {one['status']}",
        )
        for one in answer["slices"]
    ]
    rows.append(("today", "", today))
    left, step = 2_300, 420
    drawing = Drawing(len(rows) * step + 300)
    for place, (verb, when, ranges) in enumerate(rows):
        y = place * step + 60
        drawing.text(0, y + 140, verb, kind="strong")
        drawing.text(0, y + 290, when.replace("T", " ").removesuffix("Z"), kind="faint")
        drawing.rect(left, y, width=WIDTH - left, height=300, colour="#eeece6")
        for first, end, colour, who in ranges:
            x0, x1 = (left + (WIDTH - left) * edge // wh for edge in (first, end))
            drawing.rect(
                x0, y, width=max(10, x1 - x0 - 8), height=300, colour=colour, title=f"{who}: {first:,} to {end:,} Wh"
            )
            if (x1 - x0) > 75 * len(who):
                drawing.text((x0 + x1) // 2, y + 185, who, kind="inverse", anchor="middle")
    about = f"{answer['technology']}, {answer['zone']}, {format_wh(answer['wh'])}"
    period = f"{format_utc(answer['start_ms'])} to {format_utc(answer['end_ms'])}"
    rows_are = "Each row is the lot from its first to its last Wh."
    note = f"<p class=small>Lot <code>{escape(answer['lot'])}</code>. {rows_are}</p>"
    return _make_page(f"What happened to a lot: {about}", period, [drawing.finish("Ranges of the lot"), note])


def _list_parts(row: Mapping[str, Any]) -> tuple[tuple[str, int, str], ...]:
    return tuple((WORDS[name], row[name], FATE_COLOURS.get(name, OTHER_COLOUR)) for name in FATES if row[name])


def _fold(flows: Sequence[Flow]) -> list[Flow]:
    """The thickest first; what is beyond ``FLOWS_MAX`` as one."""
    ranked = sorted(flows, key=lambda flow: -flow.wh)
    if len(ranked) <= FLOWS_MAX:
        return ranked
    rest = ranked[FLOWS_MAX - 1 :]
    sums: Counter[tuple[str, str]] = Counter()
    for flow in rest:
        for word, wh, colour in flow.parts:
            sums[word, colour] += wh
    parts = tuple((word, wh, colour) for (word, colour), wh in sums.items())
    return [*ranked[: FLOWS_MAX - 1], Flow(f"{len(rest)} others", "", parts)]


def _draw_flows(label: str, flows: Sequence[Flow], *, is_source_left: bool) -> Drawing:
    """One end on one side, the many on the other."""
    folded = _fold(flows)
    total = sum(flow.wh for flow in folded)
    height = max(FLOW_HEIGHT, len(folded) * 300)
    drawing = Drawing(height + 200)
    if not total:
        drawing.text(0, 400, "Nothing in this period.", kind="strong")
        return drawing
    room = height - GAP * max(0, len(folded) - 1)
    one_x, many_x = (1_900, 7_600) if is_source_left else (9_000, 3_300)
    one_y = many_y = 60 + (height - room) // 2
    many_y = 60
    top = one_y
    for flow in folded:
        first_y = many_y
        for word, wh, colour in flow.parts:
            thick = max(6, room * wh // total)
            title = f"{flow.label}: {word} {format_wh(wh)}"
            ends = (
                ((one_x + BAR, one_y), (many_x, many_y)) if is_source_left else ((many_x + BAR, many_y), (one_x, one_y))
            )
            drawing.band(*ends, thick, colour, title)
            drawing.rect(many_x, many_y, width=BAR, height=thick, colour=colour, title=title)
            one_y, many_y = one_y + thick, many_y + thick
        x, anchor = (many_x + BAR + 100, "start") if is_source_left else (many_x - 100, "end")
        middle = (first_y + many_y) // 2
        drawing.text(x, middle - 10, _cut(flow.label), kind="strong", anchor=anchor)
        note = " · ".join(filter(None, [format_wh(flow.wh), flow.note]))
        drawing.text(x, middle + 125, note, kind="faint", anchor=anchor)
        many_y += GAP
    drawing.rect(one_x, top, width=BAR, height=one_y - top, colour="#1b1b1b", title=f"{label}: {format_wh(total)}")
    x, anchor = (one_x - 100, "end") if is_source_left else (one_x + BAR + 100, "start")
    drawing.text(x, (top + one_y) // 2 - 10, _cut(label, 20), kind="strong", anchor=anchor)
    drawing.text(x, (top + one_y) // 2 + 130, format_wh(total), kind="faint", anchor=anchor)
    return drawing


def _draw_hours(answer: Mapping[str, Any]) -> list[str]:
    """Stacked bars by source; by day where the hours would be too many. A line: what was consumed."""
    hours = [hour["start_ms"] for one in answer["sources"] for hour in one["hours"]]
    consumed_hours = answer["consumption"]["hours"]
    if not hours:
        return []
    first_ms = min(hours)
    last_ms = max(hours)
    step_ms = HOUR_MS if (last_ms - first_ms) // HOUR_MS < BARS_MAX else DAY_MS
    first = first_ms // step_ms
    count = last_ms // step_ms - first + 1
    bars: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for place, one in enumerate(answer["sources"]):
        for hour in one["hours"]:
            bars[hour["start_ms"] // step_ms - first][str(place)] += hour["wh"]
    consumed: Counter[int] = Counter()
    for hour in consumed_hours:
        consumed[hour["start_ms"] // step_ms - first] += hour["consumed_wh"]
    most = max([sum(bar.values()) for bar in bars.values()] + [wh for at, wh in consumed.items() if 0 <= at < count])
    drawing = _draw_bars(
        bars, consumed, count=count, most=max(1, most), labels=[one["label"] for one in answer["sources"]]
    )
    for at, anchor in ((0, "start"), (count - 1, "end")):
        moment = format_utc((first + at) * step_ms)[: 16 if step_ms == HOUR_MS else 10].replace("T", " ")
        drawing.text(0 if anchor == "start" else WIDTH, BARS_HEIGHT + 330, moment, kind="faint", anchor=anchor)
    each = "hour" if step_ms == HOUR_MS else "day"
    swatches = "".join(
        _make_swatch(SOURCE_COLOURS[place % len(SOURCE_COLOURS)], f"{one['label']}, {one['technology']}")
        for place, one in enumerate(answer["sources"])
    )
    line = _make_swatch("#1b1b1b", "consumed") if consumed else ""
    return [f"<h2>{each.capitalize()} by {each}</h2>", drawing.finish("Bars"), f"<p class=legend>{swatches}{line}</p>"]


def _draw_bars(
    bars: Mapping[int, Counter[str]], consumed: Mapping[int, int], *, count: int, most: int, labels: Sequence[str]
) -> Drawing:
    drawing = Drawing(BARS_HEIGHT + 400)
    base = BARS_HEIGHT + 150
    drawing.text(0, 120, format_wh(most), kind="faint")
    drawing.rect(0, base, width=WIDTH, height=8, colour="#1b1b1b")
    for at in range(count):
        x0, x1 = WIDTH * at // count, WIDTH * (at + 1) // count
        width = max(8, (x1 - x0) * 4 // 5)
        y = base
        for name, wh in bars.get(at, {}).items():
            thick = BARS_HEIGHT * wh // most
            colour = SOURCE_COLOURS[int(name) % len(SOURCE_COLOURS)]
            y -= thick
            drawing.rect(x0, y, width=width, height=thick, colour=colour, title=f"{labels[int(name)]}: {format_wh(wh)}")
        if at in consumed:
            drawing.rect(x0, base - BARS_HEIGHT * consumed[at] // most - 12, width=width, height=24, colour="#1b1b1b")
    return drawing


def _make_legend(rows: Iterable[Mapping[str, Any]]) -> str:
    seen = {name for row in rows for name in FATES if row[name]}
    spans = "".join(_make_swatch(FATE_COLOURS.get(name, OTHER_COLOUR), WORDS[name]) for name in FATES if name in seen)
    return f"<p class=legend>{spans}</p>"


def _make_swatch(colour: str, word: str) -> str:
    return f'<span><i style="background:{colour}"></i>{escape(word)}</span>'


def _make_sums(sums: Iterable[tuple[str, int]]) -> str:
    cells = "".join(f"<div><b>{format_wh(wh)}</b>{escape(name)}</div>" for name, wh in sums)
    return f"<div class=sums>{cells}</div>"


def _format_period(answer: Mapping[str, Any]) -> str:
    ends = [answer["from_ms"], answer["until_ms"]]
    if ends == [None, None]:
        return "all that is on the ledger"
    first, last = ("…" if end is None else format_utc(end) for end in ends)
    return f"{first} to {last}"


def _shorten(address: object) -> str:
    text = str(address)
    return f"{text[:8]}…{text[-4:]}" if len(text) > 16 else text


def _cut(text: str, most: int = LABEL_LETTERS_MAX) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


_STYLE: Final = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fbfaf7; margin: 0 auto; padding: 2.5rem 2rem;
  max-width: 75rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem; }
.period { color: #666; margin: .2rem 0 1.6rem; } svg { width: 100%; height: auto; display: block; }
text { font: 118px system-ui, sans-serif; fill: #1b1b1b; } text.strong { font-weight: 600; font-size: 128px; }
text.faint { fill: #666; } text.inverse { fill: #fff; }
.legend span { margin-right: 1.4rem; white-space: nowrap; font-size: .9rem; }
.legend i { display: inline-block; width: .8rem; height: .8rem; margin-right: .4rem; }
.sums { display: flex; flex-wrap: wrap; gap: .8rem 2.4rem; margin: 1.4rem 0; }
.sums div { color: #666; font-size: .9rem; } .sums b { display: block; color: #1b1b1b; font-size: 1.1rem; }
.small, code { font-size: .85rem; word-break: break-all; }
"""


def _make_page(title: str, period: str, body: Iterable[str]) -> str:
    inner = "\n".join(body)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
<h1>{escape(title)}</h1>
<p class=period>{escape(period)}</p>
{inner}
</html>
"""
