"""A real relay between a meter's port and real validators: killed, and with nobody to report to, it loses nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from contracts_native.meters import Channel, ChannelSpec, RegisterMeter, compute_meter_id
from contracts_native.sites import RegisterSite, Technology
from node.client import Answer, Client
from node.keystore import MeterSigningKey, save_key_unencrypted
from node.meter_files.dsmr import compute_crc
from tests.integration.processes import TIMEOUT_MS, Network, running_network
from tests.integration.serving import serving
from tests.integration.test_testnet import run_command

ROOT: Final = Path(__file__).resolve().parent.parent.parent
START: Final = datetime(2025, 1, 6, tzinfo=UTC)
START_MS: Final = int(START.timestamp()) * 1_000
QUARTER_MS: Final = 900_000
COUNTERS: Final = (1_000, 1_120, 1_300, 1_300, 1_450, 1_800, 1_801)
EXPECTED: Final = [(START_MS + i * QUARTER_MS, after - before) for i, (before, after) in enumerate(pairwise(COUNTERS))]


def make_telegram(place: int) -> bytes:
    """What the meter shows at the n-th quarter of an hour."""
    moment = START + timedelta(minutes=15 * place, hours=1)  # winter time
    lines = ["/XMX5LGBBFFB231314239", "", f"0-0:1.0.0({moment:%y%m%d%H%M%S}W)", "0-0:96.1.1(4B384547)"]
    lines += [f"1-0:2.8.0({COUNTERS[place] / 1000:010.3f}*kWh)", "!"]
    body = "\r\n".join(lines).encode()
    return body + f"{compute_crc(body):04X}\r\n".encode()


@dataclass
class Port:
    """A meter's port behind a TCP adapter: whoever connects is sent the telegrams of now on, and the last one again."""

    shown: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    number: int = 0
    is_connected: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        writer.write(b"7*kWh)\r\n!12AB\r\n" + make_telegram(max(0, self.shown - 1)))
        self.is_connected.set()
        with contextlib.suppress(ConnectionError):  # a relay that is killed
            await reader.read()  # it says nothing, and goes
        self.writers.remove(writer)

    def show(self, count: int) -> None:
        """The next telegrams."""
        for place in range(self.shown, self.shown + count):
            for writer in self.writers:
                writer.write(make_telegram(place))
        self.shown += count


@asynccontextmanager
async def open_port() -> AsyncIterator[Port]:
    port = Port()
    async with serving(port.serve) as port.number:
        yield port


@dataclass
class RelayProcess:
    """``wattprint reading relay`` as a process."""

    words: list[str]
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("WATTPRINT_")}
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "node", "reading", "relay", *self.words),
            cwd=ROOT,
            env=clean,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )

    async def hear(self, wanted: str) -> str:
        """The line on stderr that has these words."""
        assert self.process is not None
        assert self.process.stderr is not None
        heard = []
        async with asyncio.timeout(TIMEOUT_MS / 1000):
            while line := (await self.process.stderr.readline()).decode():
                heard.append(line)
                if wanted in line:
                    return line
        raise AssertionError(f"never said {wanted!r}: {heard}")

    async def kill(self) -> None:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()


async def register(network: Network, key: MeterSigningKey) -> bytes:
    """A solar site with a meter that has this key; the meter's id."""
    owner = network.consumer
    capacity_w, since_ms = 10_000, START_MS - 86_400_000
    site = RegisterSite(owner.address, Technology.SOLAR, "DE-LU", capacity_w, "roof", since_ms)
    done = await network.clients[0].submit(site, key=network.utility, cosigners=[owner], timeout_ms=TIMEOUT_MS)
    site_id = bytes.fromhex(next(event["site"] for event in done.events if event["event"] == "site.registered"))
    specs = (ChannelSpec(Channel.PRODUCTION, capacity_w, 900),)
    meter = RegisterMeter(site_id, "R-1", key.public_key, specs, since_ms)
    await network.clients[0].submit(meter, key=network.utility, cosigners=[owner], timeout_ms=TIMEOUT_MS)
    return compute_meter_id(network.utility.address, "R-1")


async def wait_for(client: Client, meter: bytes, is_enough: Callable[[list[Answer]], bool]) -> list[Answer]:
    """The readings of a meter, once they are enough; looks at them after each block."""
    async with asyncio.timeout(TIMEOUT_MS / 1000), client.subscribe("blocks") as blocks:
        while True:
            found: list[Answer] = (await client.reading_list(meter.hex()))["readings"]
            if is_enough(found):
                return found
            await anext(blocks)


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[Network]:
    async with running_network(tmp_path / "net", validators=1) as network:
        yield network


async def test_a_relay_that_is_killed_while_the_node_is_away_loses_nothing(tmp_path: Path, network: Network) -> None:
    key = MeterSigningKey.generate("p256")
    save_key_unencrypted(tmp_path / "meter.key.json", key)
    meter = await register(network, key)
    client = network.clients[0]
    async with open_port() as port:
        words = ["--source", f"tcp://127.0.0.1:{port.number}", "--meter", meter.hex()]
        words += ["--meter-key", str(tmp_path / "meter.key.json"), "--key", str(network.net.get_key_path("oracle"))]
        words += ["--outbox", str(tmp_path / "outbox"), "--node", network.net.get_url(0)]
        relay = RelayProcess(words)
        await relay.start()
        try:
            await relay.hear("0 intervals wait")
            await port.is_connected.wait()
            port.show(3)
            first = await wait_for(client, meter, lambda rows: len(rows) == 2)
            assert [(row["start_ms"], row["wh"]) for row in first] == EXPECTED[:2]
            network.net.kill(0)
            port.show(3)
            await relay.hear("3 intervals wait")
            await relay.kill()
            port.is_connected.clear()
            await network.net.restart(0, timeout_ms=TIMEOUT_MS)
            await relay.start()
            await relay.hear("3 intervals wait")
            await wait_for(client, meter, lambda rows: len(rows) == 5)
            await port.is_connected.wait()
            port.show(1)
            rows = await wait_for(client, meter, lambda rows: len(rows) == 6)
        finally:
            await relay.kill()
    assert [(row["start_ms"], row["wh"], row["state"]) for row in rows] == [(*one, "minted") for one in EXPECTED]
    last = (await client.meter_get(meter.hex()))["last_accepted"]["production"]
    assert last["register_wh"] == COUNTERS[-1]


async def test_a_simulated_meter_plays_a_file_once_however_often_it_is_started(
    tmp_path: Path, network: Network
) -> None:
    key = MeterSigningKey.generate()
    save_key_unencrypted(tmp_path / "meter.key.json", key)
    meter = await register(network, key)
    path = tmp_path / "day.csv"
    rows = [f"{START + timedelta(minutes=15 * i):%Y-%m-%dT%H:%M:%SZ},{100 + i}" for i in range(96)]
    words = ["meter", "simulate", path, "--meter", meter.hex(), "--meter-key", tmp_path / "meter.key.json"]
    words += ["--key", network.net.get_key_path("oracle"), "--node", network.net.get_url(0), "--json"]
    path.write_text("\n".join(["start_utc,production_wh", *rows[:40]]) + "\n")
    fast = await run_command(*words, "--as-fast")
    path.write_text("\n".join(["start_utc,production_wh", *rows]) + "\n")
    rest = await run_command(*words, "--speed", "1000000")
    again = await run_command(*words, "--as-fast")
    assert [(status, json.loads(out)["intervals"]) for status, out, _ in (fast, rest, again)] == [
        (0, 40),
        (0, 56),
        (0, 0),
    ]
    found = (await network.clients[0].reading_list(meter.hex(), limit=200))["readings"]
    assert [row["wh"] for row in found] == [100 + i for i in range(96)]
    await network.net.stop()
    home = network.net.get_home(0)
    status, out, _ = await run_command("audit", "--offline", home, "--json")
    assert (status, json.loads(out)["holds"]) == (0, True)
    status, out, _ = await run_command("export", "readings", "--offline", home, "-o", tmp_path / "a.parquet", "--json")
    assert (status, json.loads(out)["rows"]) == (0, 96)
    status, out, _ = await run_command("trace", "source", meter.hex(), "--offline", home, "--json")
    assert (status, json.loads(out)["minted_wh"]) == (0, sum(range(100, 196)))
