"""A real daemon keeps the promises of a document store: Kubo where it is on the PATH, js-ipfs where it is installed.

It is started once for all tests, offline, its API on the loopback, and is gone when they are. Without either, the
tests are skipped; ``make ipfs`` installs js-ipfs.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from node.documents.cid import format_cid
from node.documents.daemon import CallLimits, DaemonStore
from node.documents.embedded import EmbeddedStore
from tests.contracts_native.harness import BOB, UTILITY
from tests.node.documents.contract import Factory, StoreContract
from tests.node.documents.samples import make_content
from tests.node.test_cli_documents import Desk

JS_IPFS = Path(__file__).resolve().parent / "ipfs"
START_SECONDS = 60
STOP_SECONDS = 20
LIMITS = CallLimits(call_ms=30_000, lookup_ms=3_000)  # js-ipfs gives up no sooner on a block that it lacks


@asynccontextmanager
async def run_kubo(binary: str, repository: Path) -> AsyncIterator[str]:
    """Kubo's address, while it runs."""
    environment = os.environ | {"IPFS_PATH": str(repository), "IPFS_TELEMETRY": "off"}
    for command in (
        ["init", "--profile=test", "--empty-repo"],
        ["config", "Addresses.API", "/ip4/127.0.0.1/tcp/0"],
        ["config", "--json", "Addresses.Swarm", "[]"],
        ["config", "--json", "Addresses.Gateway", "[]"],
    ):
        process = await asyncio.create_subprocess_exec(binary, *command, env=environment)
        assert await asyncio.wait_for(process.wait(), START_SECONDS) == 0
    process = await asyncio.create_subprocess_exec(binary, "daemon", "--offline", env=environment, stdout=PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            while b"Daemon is ready" not in (line := await process.stdout.readline()):
                assert line, "the daemon ended before it was ready"
        yield (repository / "api").read_text().strip()
    finally:
        process.terminate()
        await end(process)


@asynccontextmanager
async def run_js_ipfs(binary: str, repository: Path) -> AsyncIterator[str]:
    """The address of js-ipfs, while it runs; it ends with its standard input."""
    command = (binary, str(JS_IPFS / "daemon.mjs"), str(repository))
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            address = (await process.stdout.readline()).decode().strip()
        assert address, "the daemon ended before it was ready"
        yield address
    finally:
        process.stdin.close()
        await end(process)


async def end(process: Process) -> None:
    """Waits for the end of a process that was asked to, and insists."""
    try:
        await asyncio.wait_for(process.communicate(), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The multiaddress of a real daemon."""
    repository = tmp_path_factory.mktemp("ipfs") / "repository"
    kubo, node = shutil.which("ipfs"), shutil.which("node")
    if kubo is not None:
        running = run_kubo(kubo, repository)
    elif node is not None and (JS_IPFS / "node_modules" / "ipfs-core").is_dir():
        running = run_js_ipfs(node, repository)
    else:
        pytest.skip("no Kubo on the PATH, and no js-ipfs; `make ipfs` installs it")
    with asyncio.Runner() as runner:
        yield runner.run(running.__aenter__())
        runner.run(running.__aexit__(None, None, None))


@pytest.fixture
def make_store(address: str, tmp_path: Path) -> Iterator[Factory]:
    """The daemon's store, emptied of what the test before left."""
    store = DaemonStore(address, spool_directory=tmp_path, limits=LIMITS)
    empty(store)
    yield lambda: store
    store.close()


def empty(store: DaemonStore) -> None:
    for cid in store.list_pins():
        store.unpin(cid)
    store.collect_garbage()


class TestContract(StoreContract):
    """A real daemon keeps every promise."""


def test_what_the_daemon_itself_chunks_has_our_cid_and_is_read_by_us(address: str, make_store: Factory) -> None:
    """``add`` with every parameter set; the daemon's own importer is an oracle that nobody here wrote."""
    store = make_store()
    for size in (0, 1, 262_144, 262_145, 5_000_000):
        content = make_content(size)
        added = asyncio.run(add(address, content))
        assert added == format_cid(store.put(io.BytesIO(content), size_max=size))


async def add(address: str, content: bytes) -> str:
    _, _, host, _, port, *_ = address.split("/")
    parameters = {
        "cid-version": "1",
        "raw-leaves": "true",
        "chunker": "size-262144",
        "pin": "false",
        "only-hash": "true",
        "cid-base": "base32",
    }
    form = aiohttp.FormData()
    form.add_field("file", io.BytesIO(content), filename="f")
    url = f"http://{host}:{port}/api/v0/add"
    async with aiohttp.ClientSession() as session, session.post(url, params=parameters, data=form) as response:
        lines = (await response.text()).splitlines()
    return str(json.loads(lines[-1])["Hash"])


def test_a_document_of_the_embedded_store_is_read_from_the_daemon_and_the_other_way(
    make_store: Factory, tmp_path: Path
) -> None:
    daemon, embedded = make_store(), EmbeddedStore(tmp_path / "embedded")
    first, second = make_content(700_000, "first"), make_content(700_000, "second")
    here = embedded.put(io.BytesIO(first), size_max=700_000)
    daemon.put_blocks(here, embedded.open_blocks(here))
    there = daemon.put(io.BytesIO(second), size_max=700_000)
    embedded.put_blocks(there, daemon.open_blocks(there))
    assert b"".join(daemon.open(here)) == first
    assert b"".join(embedded.open(there)) == second


def test_a_document_lives_in_the_daemon_and_moves_to_a_directory(address: str, tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.ask("document", "register-key", by=UTILITY)
    content = make_content(700_000)
    desk.paper.write_bytes(content)
    words = ("document", "add", desk.paper, "--kind", "kyc", "--reader", desk.keys[UTILITY])
    added = desk.ask(*words, by=BOB, store=address)
    desk.ask("document", "get", added["document"], "-o", tmp_path / "from daemon", by=UTILITY, store=address)
    assert added["cid"] in desk.ask("store", "migrate", "--to", tmp_path / "here", store=address)["cids"]
    desk.ask("document", "get", added["document"], "-o", tmp_path / "from here", by=UTILITY, store=tmp_path / "here")
    for name in ("from daemon", "from here"):
        assert (tmp_path / name).read_bytes() == content
    desk.ask("document", "retire", added["document"], by=BOB, store=address)
    assert added["cid"] not in {row["cid"] for row in desk.ask("store", "list", store=address)["pins"]}
