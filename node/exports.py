"""What leaves the ledger for other tools: readings, lots, movements, claims and bills as rows with fixed columns.

Owns the columns, and how rows are made from a node's answers, page by page: an export of any size needs the memory of
one page. Names and units are those of the ledger; times are milliseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from ledger.fields import Json

PAGE_ITEMS: Final = 1_000
Answer: TypeAlias = dict[str, Any]
Ask: TypeAlias = Callable[[str, dict[str, Json]], Awaitable[Answer]]
Kind: TypeAlias = Literal["text", "integer", "time", "boolean"]
Cell: TypeAlias = str | int | bool | None
Row: TypeAlias = Sequence[Cell]


@dataclass(frozen=True, slots=True)
class Column:
    """A column; ``time``: milliseconds since the epoch. Any cell may be empty (None)."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a table: a meter, a participant, a period. What a table does not know is refused by the command."""

    meter: str | None = None
    participant: str | None = None
    from_ms: int | None = None
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ExportTable:
    """A table: its columns in order, and how its rows are fetched. ``filters``: the fields of ``Wanted`` it knows."""

    name: str
    columns: tuple[Column, ...]
    filters: frozenset[str]
    fetch: Callable[[Ask, Wanted], AsyncIterator[Mapping[str, Json]]]

    async def iterate_rows(self, ask: Ask, wanted: Wanted) -> AsyncIterator[list[Cell]]:
        """The rows, in the order of the columns."""
        names = [column.name for column in self.columns]
        async for one in self.fetch(ask, wanted):
            yield [_make_cell(one.get(name)) for name in names]


def _make_cell(value: Json) -> Cell:
    assert not isinstance(value, list | dict), "columns hold scalars"
    return value


async def iterate_pages(ask: Ask, method: str, name: str, params: Mapping[str, Json]) -> AsyncIterator[Answer]:
    """Every item of a list method, page by page; parameters that are None are left out."""
    cursor: Json = None
    while True:
        page = await ask(method, {**params, "limit": PAGE_ITEMS, "cursor": cursor})
        for item in page[name]:
            yield item
        cursor = page["next_cursor"]
        if cursor is None:
            return


async def _fetch_readings(ask: Ask, wanted: Wanted) -> AsyncIterator[Mapping[str, Json]]:
    """By meter and channel, in order of time."""
    async for meter in _iterate_meters(ask, wanted.meter):
        params = {"meter": meter["meter"], "from_ms": wanted.from_ms, "until_ms": wanted.until_ms}
        async for one in iterate_pages(ask, "reading_list", "readings", params):
            correction = one["correction"] or {}
            about = {"meter": meter["meter"], "site": meter["site"], "version": correction.get("version", 1)}
            yield {**one, **about, "correction_reason": correction.get("reason")}


async def _iterate_meters(ask: Ask, meter: str | None) -> AsyncIterator[Answer]:
    if meter is not None:
        yield await ask("meter_get", {"meter": meter})
        return
    async for one in iterate_pages(ask, "meter_list", "meters", {}):
        yield one


async def _fetch_lots(ask: Ask, wanted: Wanted) -> AsyncIterator[Mapping[str, Json]]:
    params: dict[str, Json] = {"meter": wanted.meter, "from_ms": wanted.from_ms, "until_ms": wanted.until_ms}
    async for one in iterate_pages(ask, "lot_list", "lots", params):
        yield {**one, "version": int(one["lot"].rpartition(":")[2])}


async def _fetch_movements(ask: Ask, wanted: Wanted) -> AsyncIterator[Mapping[str, Json]]:
    params: dict[str, Json] = {"meter": wanted.meter, "from_ms": wanted.from_ms, "until_ms": wanted.until_ms}
    async for one in iterate_pages(ask, "movement_list", "movements", params):
        wh = one["wh"] if "wh" in one else one["end_wh"] - one["first_wh"]
        origin = one.get("sender") or one.get("holder") or one.get("claimant") or one.get("operator")
        target = one.get("recipient") or one.get("beneficiary")
        yield {
            **one,
            "wh": wh,
            "origin": origin,
            "target": target,
            "claim": one.get("claim") or one.get("charge"),
            "note": one.get("reason") or one.get("reference"),
        }


async def _fetch_claims(ask: Ask, wanted: Wanted) -> AsyncIterator[Mapping[str, Json]]:
    """Of a beneficiary, or of all; those whose period lies within the wanted one."""
    async for one in iterate_pages(ask, "claim_list", "claims", {"beneficiary": wanted.participant}):
        if _is_within(one["period_start_ms"], one["period_end_ms"], wanted):
            yield one


async def _fetch_bills(ask: Ask, wanted: Wanted) -> AsyncIterator[Mapping[str, Json]]:
    """Of a consumer, or of all; those issued in the wanted period."""
    async for one in iterate_pages(ask, "bill_list", "bills", {"consumer": wanted.participant}):
        if _is_within(one["issued_ms"], one["issued_ms"] + 1, wanted):
            yield one


def _is_within(start_ms: int, end_ms: int, wanted: Wanted) -> bool:
    is_late_enough = wanted.from_ms is None or start_ms >= wanted.from_ms
    return is_late_enough and (wanted.until_ms is None or end_ms <= wanted.until_ms)


def _columns(*groups: tuple[Kind, str]) -> tuple[Column, ...]:
    return tuple(Column(name, kind) for kind, names in groups for name in names.split())


_PERIOD: Final = frozenset({"from_ms", "until_ms"})
TABLES: Final[Mapping[str, ExportTable]] = {
    one.name: one
    for one in (
        ExportTable(
            "readings",
            _columns(
                ("text", "meter site channel"),
                ("time", "start_ms"),
                ("integer", "interval_s wh"),
                ("text", "flag state lot"),
                ("integer", "minted_wh claimed_wh version"),
                ("text", "correction_reason tx_id"),
            ),
            _PERIOD | {"meter"},
            _fetch_readings,
        ),
        ExportTable(
            "lots",
            _columns(
                ("text", "lot meter site technology zone"),
                ("time", "start_ms end_ms"),
                (
                    "integer",
                    "wh version predecessor active_wh reserved_wh claimed_wh charged_wh expired_wh withdrawn_wh",
                ),
            ),
            _PERIOD | {"meter"},
            _fetch_lots,
        ),
        ExportTable(
            "movements",
            _columns(
                ("time", "time_ms"),
                ("integer", "height index"),
                ("text", "tx_id event lot"),
                ("integer", "first_wh end_wh wh"),
                ("text", "origin target claim"),
                ("boolean", "is_hourly"),
                ("text", "note"),
            ),
            _PERIOD | {"meter"},
            _fetch_movements,
        ),
        ExportTable(
            "claims",
            _columns(
                ("text", "claim kind statement claimant beneficiary purpose"),
                ("time", "period_start_ms period_end_ms claimed_ms"),
                ("integer", "wh lost_wh replaced_wh slices_count"),
                ("boolean", "is_hourly"),
                ("text", "consumption_meter status replaces"),
            ),
            _PERIOD | {"participant"},
            _fetch_claims,
        ),
        ExportTable(
            "bills",
            _columns(
                ("text", "bill consumer utility reference status"),
                ("time", "issued_ms due_ms disputed_ms"),
                ("integer", "total_cents paid_cents credited_cents outstanding_cents"),
            ),
            _PERIOD | {"participant"},
            _fetch_bills,
        ),
    )
}
