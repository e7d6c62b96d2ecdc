"""``wattprint reading``: what meters measured, from a file onto the ledger.

Owns ``submit``: it signs the values of a file with the meter's key, in as few reports as gaps allow. ``list`` derives
from the node's method.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

import click

from contracts_native.lots import INTERVALS_PER_REPORT_MAX
from contracts_native.meters import Channel
from contracts_native.readings import Flag, Report, SubmitReadings, make_report_message
from ledger.fields import Json
from node.cli.csv_readings import ChannelData, read_csv
from node.cli.derive import describe_submitted, format_submitted
from node.cli.options import FILE, Signing, load_any_meter_key, with_key
from node.cli.output import format_table, note, show, show_rows
from node.cli.values import FieldType
from node.client import Client, RpcError, Submitted
from node.keystore import MeterSigningKey

FORMATS: Final[dict[str, Callable[..., list[ChannelData]]]] = {"csv": read_csv}
INTERVALS_PER_TRANSACTION_MAX: Final = 20_000  # at nine bytes each: well below the largest transaction
REPORTS_PER_TRANSACTION_MAX: Final = 500
_MOMENT: Final = FieldType("from_ms", {"type": "integer"}, None)


@click.group()
def command() -> None:
    """Readings: what meters measured and signed.

    \b
    Example:
      wattprint reading submit june.csv --dry-run
      wattprint reading submit june.csv --meter 5f0c… --meter-key meter-7.key.json --key oracle.key.json
      wattprint reading list 5f0c… --channel production --csv
    """


@dataclass(frozen=True, slots=True)
class _Channel:
    """Where a meter's channel stands: the next sequence number and register reading."""

    sequence: int
    register_wh: int


@command.command()
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE…")
@click.option("--format", "form", type=click.Choice(sorted(FORMATS)), default="csv", show_default=True)
@click.option("--meter", metavar="HEX", help="The meter's id.")
@click.option("--meter-key", type=FILE, metavar="FILE", help="The meter's key file, which signs the values.")
@click.option("--column", "columns", multiple=True, help="Take only this column; repeatable.  [default: all]")
@click.option(
    "--direction",
    type=click.Choice([channel.value for channel in Channel]),
    help="What a column measured that is neither production_wh nor consumption_wh.",
)
@click.option("--interval-s", type=int, help="Length of an interval.  [default: the shortest step in the file]")
@click.option(
    "--flag",
    type=click.Choice([flag.value for flag in Flag]),
    default=Flag.MEASURED.value,
    show_default=True,
    help="Only measured production mints.",
)
@click.option("--from", "from_ms", type=_MOMENT, metavar="TIME", help="Leave out intervals that start before.")
@click.option("--until", "until_ms", type=_MOMENT, metavar="TIME", help="Leave out intervals that start then or later.")
@click.option("--dry-run", is_flag=True, help="Only read the files and show the channels in them. Asks no node.")
@with_key
def submit(
    signing: Signing,
    *,
    files: tuple[Path, ...],
    form: str,
    meter: str | None,
    meter_key: Path | None,
    columns: tuple[str, ...],
    direction: str | None,
    interval_s: int | None,
    flag: str,
    from_ms: int | None,
    until_ms: int | None,
    dry_run: bool,
) -> None:
    """Put the values of files on the ledger, signed by the meter.

    A CSV file has the column start_utc (2016-06-06T00:00:00Z, the start of the interval) and whole watt-hours in
    production_wh, consumption_wh or columns of any name. A gap in the file begins a new report. Sequence number and
    register go on from what the ledger has.
    """
    channels = [
        _cut(one, direction, from_ms, until_ms)
        for file in files
        for one in FORMATS[form](file, columns=columns, interval_s=interval_s)
    ]
    channels = [one for one in channels if one.values_wh]
    rows = [one.describe() for one in channels]
    if dry_run:
        show_rows(signing, cast("list[Json]", rows), rows)
        return
    if meter is None or meter_key is None:
        raise click.UsageError("Give --meter and --meter-key, or --dry-run.")
    for one in channels:
        if one.direction is None:
            raise click.UsageError(f"Column {one.point} of {one.source}: say --direction, or choose with --column.")
    if not channels:
        raise click.UsageError("No interval of these files is within --from and --until.")
    key = load_any_meter_key(meter_key)
    _submit_all(signing, channels, meter=meter, key=key, flag=Flag(flag))


def _submit_all(
    signing: Signing, channels: Sequence[ChannelData], *, meter: str, key: MeterSigningKey, flag: Flag
) -> None:
    sender, cosigners = signing.load_key(), signing.load_cosigners()

    async def send(client: Client) -> list[dict[str, Json]]:
        status: dict[str, Any] = await client.chain_status()
        known: dict[str, Any] = await client.call("meter_get", meter=meter)
        reports = make_reports(channels, known, status["chain_id"], key, flag)
        done: list[dict[str, Json]] = []
        for batch in split_reports(reports):
            payload = SubmitReadings(tuple(batch))
            if signing.is_trial:
                signed = await client.sign(payload, key=sender, cosigners=cosigners)
                answer: dict[str, Any] = await client.tx_simulate(signed.raw.hex())
                done.append({"tx_id": signed.tx_id, "status": "simulated", "events": answer["events"]})
                break  # what follows builds on it, and it was not kept
            wait = "committed" if signing.has_to_wait else "admitted"
            try:
                submitted: Submitted = await client.submit(
                    payload, key=sender, cosigners=cosigners, wait=wait, timeout_ms=signing.timeout_ms
                )
            except RpcError:
                if done:
                    note(signing, f"{len(done)} transactions before this one are done")
                raise
            done.append(describe_submitted(submitted))
        return done

    transactions = signing.run(send)
    rows = [one.describe() for one in channels]
    shown = [format_submitted({**one, "events": []}) for one in transactions]
    document: dict[str, Json] = {"channels": cast(Json, rows), "transactions": cast(Json, transactions)}
    show(signing, document, "\n".join([format_table(rows), "", *shown]))


def make_reports(
    channels: Sequence[ChannelData], meter: dict[str, Any], chain_id: str, key: MeterSigningKey, flag: Flag
) -> list[Report]:
    """Signed reports of these channels, going on from where ``meter_get`` says that the meter stands."""
    last = meter["last_accepted"]
    stands = {
        name: _Channel(record["sequence"] + 1, record["register_wh"]) if record else _Channel(1, 0)
        for name, record in last.items()
    }
    reports = []
    for data in sorted(channels, key=lambda one: one.starts_ms[0]):
        assert data.direction is not None
        name = data.direction.value
        if name not in stands:
            raise click.UsageError(f"The meter has no channel {name}; it has: {', '.join(stands)}.")
        for start_ms, values_wh in data.split(INTERVALS_PER_REPORT_MAX):
            stand = stands[name]
            fields = {
                "meter": bytes.fromhex(meter["meter"]),
                "channel": data.direction,
                "sequence": stand.sequence,
                "start_ms": start_ms,
                "interval_s": data.interval_s,
                "values_wh": values_wh,
                "register_start_wh": stand.register_wh,
                "register_end_wh": stand.register_wh + sum(values_wh),
                "flag": flag,
            }
            arguments = cast("dict[str, Any]", fields)
            reports.append(Report(**arguments, signature=key.sign(make_report_message(chain_id, **arguments))))
            stands[name] = _Channel(stand.sequence + 1, stand.register_wh + sum(values_wh))
    return reports


def split_reports(reports: Sequence[Report]) -> list[list[Report]]:
    """Reports in their order, as many in a transaction as it can carry."""
    batches: list[list[Report]] = []
    intervals = 0
    for report in reports:
        intervals += len(report.values_wh)
        if not batches or len(batches[-1]) == REPORTS_PER_TRANSACTION_MAX or intervals > INTERVALS_PER_TRANSACTION_MAX:
            batches.append([])
            intervals = len(report.values_wh)
        batches[-1].append(report)
    return batches


def _cut(data: ChannelData, direction: str | None, from_ms: int | None, until_ms: int | None) -> ChannelData:
    """The part of a channel in [``from_ms``, ``until_ms``), with the direction if its column did not say it."""
    kept = [
        pair
        for pair in zip(data.starts_ms, data.values_wh, strict=True)
        if (from_ms is None or pair[0] >= from_ms) and (until_ms is None or pair[0] < until_ms)
    ]
    return replace(
        data,
        direction=data.direction or (Channel(direction) if direction else None),
        starts_ms=tuple(start_ms for start_ms, _ in kept),
        values_wh=tuple(value_wh for _, value_wh in kept),
    )
