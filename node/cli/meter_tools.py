"""``wattprint meter simulate`` and ``wattprint reading relay``: meters that run until they are told to stop.

Owns their options; what they do is node/meters's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from contracts_native.meters import Channel
from contracts_native.readings import Flag
from ledger.fields import Json
from node.cli.options import FILE, Signing, load_any_meter_key, with_key
from node.cli.output import note, show
from node.client import Client
from node.keystore import MeterSigningKey
from node.meter_files.choosing import Choice, choose
from node.meter_files.csv_file import read_csv
from node.meter_files.detection import READERS, detect_format, read_meter_file
from node.meter_files.model import ChannelData, Event, collect_channels
from node.meter_files.opening import open_meter_file
from node.meters.outbox import Outbox
from node.meters.relay import Relay
from node.meters.reports import make_signing_meter
from node.meters.running import Ledger, Running, find_meter, play
from node.meters.simulator import Pace, Player
from node.meters.sources import open_source
from node.meters.telegrams import TelegramFeed

SPEED_MAX: Final = 1_000_000
OUTBOX_SUFFIX: Final = ".outbox"


@click.command(short_help="Be a meter: play a file.")
@click.argument("file", type=FILE)
@click.option("--meter", metavar="HEX", required=True, help="The meter's id.")
@click.option("--meter-key", type=FILE, metavar="FILE", required=True, help="The meter's key file.")
@click.option(
    "--speed",
    type=click.IntRange(1, SPEED_MAX),
    help="Seconds of the file in a second of the clock.  [default: 1, as the meter did]",
)
@click.option("--as-fast", is_flag=True, help="As fast as the ledger takes it.")
@click.option("--format", "form", type=click.Choice(sorted(READERS)), help="  [default: what the file begins like]")
@click.option("--column", "columns", multiple=True, help="Take only this column of a CSV; repeatable.")
@click.option("--point", "points", multiple=True, help="Take only this metering point; repeatable.")
@click.option("--direction", type=click.Choice([channel.value for channel in Channel]), help="Of a CSV column.")
@with_key
def simulate(
    signing: Signing,
    *,
    file: Path,
    meter: str,
    meter_key: Path,
    speed: int | None,
    as_fast: bool,
    form: str | None,
    columns: tuple[str, ...],
    points: tuple[str, ...],
    direction: str | None,
) -> None:
    """Be a meter: play a file, signing each interval when it is over.

    The file's own times are reported. Played at its own speed, a quarter-hour of the file takes a quarter of an hour.
    Sequence numbers and registers go on from what the ledger has, and what it has already is left out, so a simulator
    that was stopped goes on where it was. A node that is away is waited for.

    \b
    Example:
      wattprint meter simulate june.csv --meter 5f0c… --meter-key meter-7.key.json --speed 900 --key oracle.key.json
    """
    if as_fast and speed is not None:
        raise click.UsageError("--speed and --as-fast exclude each other.")
    _refuse_trial(signing)
    key, sender = load_any_meter_key(meter_key), signing.load_key()
    choice = Choice(points, Channel(direction) if direction else None, Flag.MEASURED)
    channels = [one for one in collect_channels(choose(_read_file(file, form, columns), choice)) if _is_playable(one)]
    if not channels:
        raise click.UsageError("This file has no interval to play.")

    async def run(client: Client) -> int:
        signer = await find_meter(client, meter, _make_meter(key), lambda text: note(signing, text))
        player = Player(signer, channels, Pace(None if as_fast else speed or 1))
        return await play(player, Ledger(client, signer, sender), lambda text: note(signing, text))

    done = signing.run(run)
    show(signing, {"meter": meter, "intervals": done}, f"{done} intervals reported")


@click.command(short_help="Relay DSMR telegrams to the ledger.")
@click.option("--source", required=True, metavar="URL|PATH", help="tcp://HOST:PORT, mqtt://HOST/TOPIC, or a path.")
@click.option("--meter", metavar="HEX", required=True, help="The meter's id.")
@click.option("--meter-key", type=FILE, metavar="FILE", required=True, help="The key file that signs for the meter.")
@click.option(
    "--outbox",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help=f"Keeps what the ledger has not yet.  [default: METER{OUTBOX_SUFFIX}]",
)
@click.option("--point", help="Only telegrams of this metering point.  [default: all]")
@with_key
def relay(
    signing: Signing, *, source: str, meter: str, meter_key: Path, outbox: Path | None, point: str | None
) -> None:
    """Relay DSMR telegrams to the ledger: from a TCP port, a serial line or a pipe, an MQTT topic, or a file.

    Each interval of the meter is what its counter did from one edge to the next. What was read is kept in the outbox
    until the ledger has it: the node may be away, and the relay may be killed. It ends with a file; otherwise stop it
    with Ctrl-C and start it again.

    \b
    Example:
      wattprint reading relay --source /dev/ttyUSB0 --meter 5f0c… --meter-key meter-7.key.json --key oracle.key.json
      wattprint reading relay --source mqtt://broker/p1/telegram --meter 5f0c… --meter-key meter-7.key.json
    """
    _refuse_trial(signing)
    key, sender = load_any_meter_key(meter_key), signing.load_key()

    def say(text: str) -> None:
        note(signing, text)

    async def run(client: Client) -> dict[str, Json]:
        chunks = open_source(source, client_id=f"wattprint-{meter}", say=say)
        signer = await find_meter(client, meter, _make_meter(key), say)
        path = outbox or Path(meter + OUTBOX_SUFFIX)
        with Outbox(path, chain_id=signer.chain_id, meter=signer.meter) as box:
            machine = Relay(signer, box.read())
            say(f"outbox {path}: {machine.waiting} intervals wait")
            running = Running(machine, box, Ledger(client, signer, sender), TelegramFeed(source), point, say)
            try:
                await running.run(chunks)
            except asyncio.CancelledError:
                say(f"stopped; {machine.delivered} intervals delivered, {machine.waiting} wait in {path}")
                raise
            return {"delivered": machine.delivered, "waiting": machine.waiting, "set_aside": machine.aside}

    try:
        document = signing.run(run)
    except asyncio.CancelledError:
        raise click.Abort from None
    show(signing, document, f"{document['delivered']} intervals delivered, {document['set_aside']} set aside")


def _make_meter(key: MeterSigningKey) -> Any:
    return lambda chain_id, known: make_signing_meter(chain_id, known, key)


def _is_playable(one: ChannelData) -> bool:
    if one.direction is None:
        raise click.UsageError(f"Column {one.point} of {one.source}: say --direction, or choose with --column.")
    return bool(one.values)


def _read_file(path: Path, form: str | None, columns: tuple[str, ...]) -> Iterator[Event]:
    file = open_meter_file(path)
    found = form or detect_format(file)
    if found == "csv":
        return read_csv(file, columns=columns)
    if columns:
        raise click.UsageError(f"{path} is {found}: --column is for CSV.")
    return read_meter_file(file, found)


def _refuse_trial(signing: Signing) -> None:
    if signing.is_trial or not signing.has_to_wait or signing.cosigner_paths:
        raise click.UsageError("--simulate, --no-wait and --cosign do not apply here.")
