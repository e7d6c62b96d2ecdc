"""A certificate as a page for a wall: who used how much, of which hours, from where, and how to check it.

Owns one HTML page of A4 with everything in it: no script, no font, no picture from elsewhere. Only a certificate that
was verified can be printed. Times are UTC.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

import segno

from contracts_native.claims import Claim, ClaimKind
from contracts_native.lots import SliceRef
from ledger.primitives import Address, format_address
from node.certificates.page import CHART_HEIGHT, CHART_WIDTH, PAGE, STYLE
from node.certificates.verify import Verified

QR_PREFIX: Final = "wattprint:certificate:"
SOURCES_SHOWN_MAX: Final = 8  # what fits the page; the rest is summed up
CHARGED_SHOWN_MAX: Final = 4
BARS_MAX: Final = 72
HOUR_MS: Final = 3_600_000
_BAR_LENGTHS_MS: Final = tuple(hours * HOUR_MS for hours in (1, 6, 24, 7 * 24, 30 * 24, 365 * 24))
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class _Bar:
    start_ms: int
    wh: int


def make_page(verified: Verified) -> str:
    """The page of a verified certificate, HTML."""
    certificate = verified.certificate
    header = certificate.header
    certificate_id = certificate.id.hex()
    starts = [ref.lot.start_ms for ref in verified.refs]
    ends = [verified.lots[ref.lot].end_ms for ref in verified.refs]
    return PAGE.format(
        style=STYLE,
        title=escape(f"Certificate of provenance {certificate_id[:16]}"),
        amount=format_energy(verified.wh),
        statement=_format_statement(verified),
        facts=_format_facts(verified),
        hours=escape(f"{format_time(min(starts))} – {format_time(max(ends))} UTC"),
        chart=_draw_chart(verified),
        sources=_format_sources(verified),
        basis=escape(_format_basis(verified)),
        chain=escape(header.chain_id),
        height=header.height,
        time=escape(format_time(header.time_ms)),
        signatures=len(certificate.commit.signatures),
        validators=verified.validators_count,
        code=_draw_code(QR_PREFIX + certificate_id),
        id=" ".join(certificate_id[at : at + 16] for at in range(0, len(certificate_id), 16)),
    )


def format_energy(wh: int) -> str:
    """Watt-hours for people: ``850 Wh``, ``1.25 kWh``, ``12 345 kWh``."""
    if wh < 1_000:
        return f"{wh} Wh"
    whole, rest = divmod(wh, 1_000)
    fraction = f".{rest:03}".rstrip("0").rstrip(".")
    return f"{whole:,}".replace(",", "\u202f") + fraction + " kWh"


def format_time(time_ms: int) -> str:
    """``6 Jun 2024 14:15`` of milliseconds since 1970, UTC."""
    year, month, day = compute_date(time_ms // (24 * HOUR_MS))
    minutes = time_ms // 60_000 % (24 * 60)
    return f"{day} {_MONTHS[month - 1]} {year} {minutes // 60:02}:{minutes % 60:02}"


def compute_date(days: int) -> tuple[int, int, int]:
    """Year, month and day of days since 1970-01-01 (Hinnant's algorithm: years that begin in March, eras of 400)."""
    era, day_of_era = divmod(days + 719_468, 146_097)
    year = (day_of_era - day_of_era // 1_460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year + year // 4 - year // 100)
    march_month = (5 * day_of_year + 2) // 153
    month = march_month + 3 if march_month < 10 else march_month - 9
    return year + 400 * era + (month <= 2), month, day_of_year - (153 * march_month + 2) // 5 + 1


def _format_statement(verified: Verified) -> str:
    claim, holding = verified.certificate.claim, verified.certificate.holding
    if claim is None:
        assert holding is not None, "a certificate is of a claim or of a holding"
        return f"held by <strong>{_name(verified, holding.holder)}</strong>"
    who = f"<strong>{_name(verified, claim.record.beneficiary)}</strong>"
    if claim.record.kind is ClaimKind.CHARGE:
        return f"charged into the storage of {who}"
    return f"used by {who}, and by nobody else, ever"


def _format_facts(verified: Verified) -> str:
    claim, holding = verified.certificate.claim, verified.certificate.holding
    facts: list[tuple[str, str]] = []
    if claim is not None:
        facts = _list_claim_facts(verified, claim.claim, claim.record)
    if holding is not None:
        facts = [("Holder", format_address(holding.holder)), ("Slices", str(len(holding.slices)))]
    return "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)


def _list_claim_facts(verified: Verified, claim_id: bytes, record: Claim) -> list[tuple[str, str]]:
    facts = [("Beneficiary", format_address(record.beneficiary))]
    if record.claimant != record.beneficiary:
        facts.append(("Claimed by", f"{_find_label(verified, record.claimant)} {format_address(record.claimant)}"))
    facts += [("Statement", record.statement)] if record.statement else []
    facts += [("Purpose", record.purpose)] if record.purpose else []
    matching = "hour by hour with metered consumption" if record.is_hourly else "by volume, over the period"
    facts.append(("Matching", matching))
    facts.append(("Claim", claim_id.hex()))
    return facts


def _format_sources(verified: Verified) -> str:
    sites = {one.site: one.record for one in verified.certificate.sites}
    meters = {one.meter: one.record for one in verified.certificate.meters}
    amounts: Counter[tuple[str, str, str, str]] = Counter()
    for ref in verified.refs:
        meter, lot = meters[ref.lot.meter], verified.lots[ref.lot]
        amounts[sites[meter.site].label, lot.technology.value, lot.zone, meter.serial] += ref.wh
    rows = [_make_row(*source, format_energy(wh)) for source, wh in amounts.most_common(SOURCES_SHOWN_MAX)]
    rest = amounts.most_common()[SOURCES_SHOWN_MAX:]
    if rest:
        wh = sum(wh for _, wh in rest)
        rows.append(_make_row(f"{len(rest)} more sources", "", "", "", format_energy(wh)))
    return "".join(rows)


def _format_basis(verified: Verified) -> str:
    """Who measured it, who corrected it, and what a storage was charged with."""
    certificate = verified.certificate
    said = ["Every interval was signed by its meter."]
    bodies = sorted({one.correction.corrected_by for one in certificate.lots if one.correction is not None})
    if bodies:
        names = ", ".join(_find_label(verified, body) for body in bodies)
        said.append(f"Some were corrected by the measurement body: {names}.")
    sites = {one.site: one.record.label for one in certificate.sites}
    meters = {one.meter: one.record.site for one in certificate.meters}
    charged = {
        f"{sites[meters[ref.lot.meter]]} ({verified.lots[ref.lot].technology.value})"
        for charge in certificate.charges
        for ref in charge.record.slices
    }
    if charged:
        shown = sorted(charged)[:CHARGED_SHOWN_MAX]
        more = f" and {len(charged) - len(shown)} more" if len(charged) > len(shown) else ""
        said.append(f"What left a storage had been charged from {', '.join(shown)}{more}.")
    return " ".join(said)


def _make_row(*cells: str) -> str:
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _draw_chart(verified: Verified) -> str:
    """The energy over time as an SVG of at most ``BARS_MAX`` bars."""
    bars, length_ms = _make_bars(verified.refs)
    most_wh = max(bar.wh for bar in bars)
    first_ms = bars[0].start_ms
    count = (bars[-1].start_ms - first_ms) // length_ms + 1
    step = CHART_WIDTH // max(count, 12)
    shapes = []
    for bar in bars:
        height = max(1, bar.wh * CHART_HEIGHT // most_wh)
        x, y = (bar.start_ms - first_ms) // length_ms * step, CHART_HEIGHT - height
        said = escape(f"{format_time(bar.start_ms)}: {format_energy(bar.wh)}")
        shapes.append(
            f'<rect x="{x}" y="{y}" width="{max(1, step - 1)}" height="{height}"><title>{said}</title></rect>'
        )
    box = f"0 0 {step * max(count, 12)} {CHART_HEIGHT + 1}"
    base = f'<path d="M0 {CHART_HEIGHT}H{step * max(count, 12)}"/>'
    hours = length_ms // HOUR_MS
    each = f"{hours} h" if hours < 24 else f"{hours // 24} d"
    caption = f"<figcaption>one bar: {each}, the highest: {escape(format_energy(most_wh))}</figcaption>"
    return f'<figure><svg viewBox="{box}" preserveAspectRatio="none">{"".join(shapes)}{base}</svg>{caption}</figure>'


def _make_bars(refs: Sequence[SliceRef]) -> tuple[list[_Bar], int]:
    """The energy in periods of one length, the shortest of which there are not too many; and that length, ms."""
    span_ms = max(ref.lot.start_ms for ref in refs) - min(ref.lot.start_ms for ref in refs)
    fitting = [length for length in _BAR_LENGTHS_MS if span_ms // length + 2 <= BARS_MAX]
    length_ms = fitting[0] if fitting else (span_ms // (BARS_MAX - 2) // HOUR_MS + 1) * HOUR_MS
    return _sum_up(refs, length_ms), length_ms


def _sum_up(refs: Iterable[SliceRef], length_ms: int) -> list[_Bar]:
    sums: Counter[int] = Counter()
    for ref in refs:
        sums[ref.lot.start_ms - ref.lot.start_ms % length_ms] += ref.wh
    return [_Bar(start_ms, wh) for start_ms, wh in sorted(sums.items())]


def _draw_code(text: str) -> str:
    code = segno.make(text, error="m", micro=False)
    return code.svg_inline(border=2, omitsize=True, dark="#1d3b2a", light=None)


def _name(verified: Verified, address: Address) -> str:
    return escape(_find_label(verified, address) or format_address(address))


def _find_label(verified: Verified, address: Address) -> str:
    return next(one.record.label for one in verified.certificate.participants if one.address == address)
