"""``wattprint reading``: what meters measured, from a file onto the ledger.

Owns ``submit``: it signs the values of a file with the meter's key, in as few reports as gaps allow. ``list`` derives
from the node's method.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, cast

import click

from contracts_native.lots import INTERVALS_PER_REPORT_MAX
from contracts_native.meters import Channel
from contracts_native.readings import Flag, Report, SubmitReadings
from ledger.fields import Json
from node.cli.derive import describe_submitted, format_submitted
from node.cli.meter_tools import relay
from node.cli.options import FILE, Signing, load_any_meter_key, with_key
from node.cli.output import format_table, note, show, show_rows
from node.cli.values import FieldType
from node.client import Client, RpcError, Submitted
from node.keystore import MeterSigningKey
from node.meter_files.choosing import Choice, choose
from node.meter_files.csv_file import read_csv
from node.meter_files.detection import READERS, detect_format, read_meter_file
from node.meter_files.instants import format_utc
from node.meter_files.model import ChannelData, Event, Skipped, collect_channels
from node.meter_files.opening import open_meter_file
from node.meter_files.stretches import regroup, split_into_reports
from node.meter_files.summary import summarise, summarise_events
from node.meters.reports import NEVER, SigningMeter, Stand, advance_stand, make_stretch, read_stands

INTERVALS_PER_TRANSACTION_MAX: Final = 20_000  # at nine bytes each: well below the largest transaction
REPORTS_PER_TRANSACTION_MAX: Final = 500
_MOMENT: Final = FieldType("from_ms", {"type": "integer"}, None)


@click.group()
def command() -> None:
    """Readings: what meters measured and signed.

    \b
    Example:
      wattprint reading submit june.csv march.xml p1.txt --dry-run
      wattprint reading submit june.csv --meter 5f0c… --meter-key meter-7.key.json --key oracle.key.json
      wattprint reading list 5f0c… --channel production --csv
      wattprint reading relay --source tcp://192.168.1.7:8088 --meter 5f0c… --meter-key meter-7.key.json
    """


command.add_command(relay)


@command.command()
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE…")
@click.option(
    "--format", "form", type=click.Choice(sorted(READERS)), help="The files' format.  [default: what each begins like]"
)
@click.option("--meter", metavar="HEX", help="The meter's id.")
@click.option("--meter-key", type=FILE, metavar="FILE", help="The meter's key file, which signs the values.")
@click.option("--column", "columns", multiple=True, help="Take only this column of a CSV; repeatable.  [default: all]")
@click.option("--point", "points", multiple=True, help="Take only this metering point; repeatable.  [default: all]")
@click.option(
    "--direction",
    type=click.Choice([channel.value for channel in Channel]),
    help="What a CSV column measured whose name does not end in production_wh or consumption_wh.",
)
@click.option(
    "--interval-s",
    type=click.IntRange(min=1),
    help="Length of an interval of a CSV.  [default: the shortest step in the file]",
)
@click.option(
    "--flag",
    type=click.Choice([flag.value for flag in Flag]),
    default=Flag.MEASURED.value,
    show_default=True,
    help="The best that a value may be called; a file may call it less. Only measured production mints.",
)
@click.option("--from", "from_ms", type=_MOMENT, metavar="TIME", help="Leave out intervals that start before.")
@click.option("--until", "until_ms", type=_MOMENT, metavar="TIME", help="Leave out intervals that start then or later.")
@click.option("--dry-run", is_flag=True, help="Only read the files and show the channels in them. Asks no node.")
@with_key
def submit(
    signing: Signing,
    *,
    files: tuple[Path, ...],
    form: str | None,
    meter: str | None,
    meter_key: Path | None,
    columns: tuple[str, ...],
    points: tuple[str, ...],
    direction: str | None,
    interval_s: int | None,
    flag: str,
    from_ms: int | None,
    until_ms: int | None,
    dry_run: bool,
) -> None:
    """Put the values of files on the ledger, signed by the meter.

    Files are CSV, Green Button (ESPI XML), DSMR P1 telegrams, NEM12 or MSCONS. A CSV file has the column start_utc
    (2016-06-06T00:00:00Z, the start of the interval) and whole watt-hours in production_wh, consumption_wh or columns
    of any name. A gap begins a new report, and so does another quality. Intervals that are shorter than the meter's
    are added up. Sequence number and register go on from what the ledger has.
    """
    choice = Choice(points, Channel(direction) if direction else None, Flag(flag), from_ms, until_ms)
    events = choose(_read_files(signing, files, form, columns, interval_s), choice)
    if dry_run:
        rows = [one.to_json() for one in summarise_events(events)]
        show_rows(signing, cast("list[Json]", rows), rows)
        return
    if meter is None or meter_key is None:
        raise click.UsageError("Give --meter and --meter-key, or --dry-run.")
    channels = [one for one in collect_channels(events) if one.values]
    for one in channels:
        if one.direction is None:
            raise click.UsageError(f"Column {one.point} of {one.source}: say --direction, or choose with --column.")
    if not channels:
        raise click.UsageError("These files have no interval to submit. (Of telegrams, it takes two to make one.)")
    channels.sort(key=lambda one: one.values[0].start_ms)
    check_apart(channels)
    _submit_all(signing, channels, meter=meter, key=load_any_meter_key(meter_key))


def _read_files(
    signing: Signing, files: Sequence[Path], form: str | None, columns: Sequence[str], interval_s: int | None
) -> Iterator[Event]:
    """The values of the files, one after another; what is left out of them is noted on stderr."""
    for path in files:
        file = open_meter_file(path)
        found = form or detect_format(file)
        if found != "csv" and (columns or interval_s):
            raise click.UsageError(f"{path} is {found}: --column and --interval-s are for CSV.")
        events: Iterator[Event] = (
            read_csv(file, columns=columns, interval_s=interval_s) if found == "csv" else read_meter_file(file, found)
        )
        for event in events:
            if isinstance(event, Skipped):
                note(signing, f"left out of {event.source}: {event.point}: {event.what}")
            yield event


def _submit_all(signing: Signing, channels: Sequence[ChannelData], *, meter: str, key: MeterSigningKey) -> None:
    sender, cosigners = signing.load_key(), signing.load_cosigners()

    async def send(client: Client) -> tuple[list[ChannelData], list[dict[str, Json]]]:
        status: dict[str, Any] = await client.chain_status()
        known: dict[str, Any] = await client.call("meter_get", meter=meter)
        fitted = fit_channels(channels, known)
        for text in describe_left_out(channels, fitted):
            note(signing, text)
        reports = make_reports(fitted, known, status["chain_id"], key)
        if not reports:
            lengths = " and ".join(sorted({f"{one.interval_s} s" for one in fitted}))
            raise click.UsageError(f"These files fill no interval of the meter, which has intervals of {lengths}.")
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
        return fitted, done

    fitted, transactions = signing.run(send)
    rows = summarise(fitted)
    shown = [format_submitted({**one, "events": []}) for one in transactions]
    document: dict[str, Json] = {"channels": cast(Json, rows), "transactions": cast(Json, transactions)}
    show(signing, document, "\n".join([format_table(rows), "", *shown]))


def check_apart(channels: Sequence[ChannelData]) -> None:
    """A meter has one channel a direction: two of the files' that overlap are not both its. Raises ``UsageError``.

    ``channels`` are in order of time.
    """
    for direction in Channel:
        for one, other in pairwise(one for one in channels if one.direction is direction):
            start_ms = other.values[0].start_ms
            if start_ms < one.values[-1].end_ms:
                raise click.UsageError(
                    f"{one.point} of {one.source} and {other.point} of {other.source} are both {direction} at "
                    f"{format_utc(start_ms)}: choose with --point or --column, or --from and --until."
                )


def fit_channels(channels: Sequence[ChannelData], meter: dict[str, Any]) -> list[ChannelData]:
    """The channels in intervals of the meter that ``meter_get`` describes."""
    lengths_s = {spec["channel"]: spec["interval_s"] for spec in meter["channels"]}
    for data in channels:
        if data.direction not in lengths_s:
            raise click.UsageError(
                f"{data.point} of {data.source} is {data.direction}; the meter has only: {', '.join(lengths_s)}."
            )
    return [regroup(data, lengths_s[data.direction]) for data in channels]


def describe_left_out(channels: Sequence[ChannelData], fitted: Sequence[ChannelData]) -> Iterator[str]:
    """A line for each channel of which not all fills intervals of the meter."""
    for one, fit in zip(channels, fitted, strict=True):
        left_wh = sum(value.wh or 0 for value in one.values) - sum(value.wh or 0 for value in fit.values)
        if left_wh:
            yield f"left out of {one.source}: {one.point}: {left_wh} Wh that fill no interval of {fit.interval_s} s"


def make_reports(
    channels: Sequence[ChannelData], meter: dict[str, Any], chain_id: str, key: MeterSigningKey
) -> list[Report]:
    """Signed reports of fitted channels, going on from where ``meter_get`` says that the meter stands."""
    stands = read_stands(meter)
    lengths_s = {Channel(spec["channel"]): int(spec["interval_s"]) for spec in meter["channels"]}
    signer = SigningMeter(chain_id, bytes.fromhex(meter["meter"]), lengths_s, key)
    reports = []
    for data in channels:
        direction = data.direction
        assert direction is not None
        counters = {register.time_ms: register.wh for register in data.registers}
        stand = stands[direction]
        for stretch in split_into_reports(data, intervals_max=INTERVALS_PER_REPORT_MAX):
            start_wh = _compute_register_wh(stretch.start_ms, counters.get(stretch.start_ms), stand)
            counted = make_stretch(
                stretch.start_ms,
                stretch.interval_s,
                stretch.values_wh,
                register_start_wh=start_wh,
                flag=stretch.flag,
            )
            reports.append(signer.sign(direction, counted, sequence=stand.sequence + 1))
            stand = advance_stand(stand, reports[-1])
        stands[direction] = stand
    return reports


def _compute_register_wh(start_ms: int, counter_wh: int | None, stand: Stand) -> int:
    """The register at the start of a report: where the ledger has it, or the meter's own counter if the file has that.

    The counter shows what went through in a gap. Where the ledger's register went another way, it goes on from there.
    """
    if counter_wh is None or start_ms == stand.end_ms:
        return stand.register_wh
    if stand == NEVER or start_ms < stand.end_ms:
        return counter_wh
    return max(counter_wh, stand.register_wh)


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
