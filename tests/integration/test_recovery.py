"""A node whose disk fails it stops with a clear word and loses nothing; a lost one comes back from a snapshot."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from io import FileIO
from pathlib import Path
from typing import Final

import pytest

from contracts_native.credits import IssueCredits
from contracts_native.table import load_table
from ledger.errors import CorruptStore
from ledger.primitives import Hash
from ledger.storage import Changes
from ledger.transaction import make_body, sign_transaction
from node import chain_store, journal
from node.config import NodeConfig, read_config
from node.errors import LocalError
from node.housekeeping import Upkeep
from node.launch import JOURNAL_NAME, STORE_NAME, join_by_snapshot, make_runtime, open_node, read_genesis_file
from node.leveldb_store import LevelDbStore, StoreError
from node.runtime import Runtime
from node.service import CommittedBlock, Wait
from node.testnet import Testnet
from node.verification import verify_store
from tests.integration.processes import TIMEOUT_MS, running_network
from tests.integration.test_testnet import run_command

TMPFS_BYTES: Final = 48 * 1024 * 1024


class Lone:
    """A lone validator in this process."""

    def __init__(self, runtime: Runtime, net: Testnet) -> None:
        self.runtime = runtime
        self._key = net.load_key("utility")
        self._chain_id = read_genesis_file(read_config(net.get_home(0)).genesis_file).chain_id

    async def wait(self, tx_id: Hash) -> None:
        """Until this node has committed a transaction."""
        done = asyncio.Event()

        def look(block: CommittedBlock) -> None:
            if tx_id in [tx.tx_id for tx in block.transactions]:
                done.set()

        self.runtime.subscribe(look)
        if chain_store.find_transaction_place(self.runtime.reader, tx_id) is None:
            await asyncio.wait_for(done.wait(), TIMEOUT_MS / 1000)

    async def pay_in(self, number: int, *, timeout_ms: int = TIMEOUT_MS) -> Hash | None:
        """Issue credits; the id once it is durable, None when it was not."""
        body = make_body(
            chain_id=self._chain_id,
            payload=IssueCredits(self._key.address, 5, f"payment {number}"),
            sender=self._key.address,
            valid_until=self.runtime.core.header.height + 500,
            salt=number.to_bytes(8, "big"),
        )
        raw = sign_transaction(body, [(self._key.public_key, self._key.sign)])
        (outcome,) = await self.runtime.submit([raw], wait=Wait.COMMITTED, timeout_ms=timeout_ms)
        return None if outcome.timed_out or outcome.error is not None else outcome.tx_id


@asynccontextmanager
async def running(net: Testnet, index: int = 0, upkeep: Upkeep | None = None) -> AsyncIterator[Lone]:
    """The node of one home of a test network, in this process."""
    runtime = make_runtime(open_node(net.get_home(index)), upkeep)
    await runtime.start()
    try:
        yield Lone(runtime, net)
    finally:
        await runtime.stop()


@pytest.fixture
def net(tmp_path: Path) -> Testnet:
    return Testnet.create(tmp_path / "net", validators=1, block_ms=20, base_port=0)


def get_config(net: Testnet) -> NodeConfig:
    return read_config(net.get_home(0))


def check_store(net: Testnet, paid: list[Hash]) -> int:
    """The stored chain verifies from genesis, and holds all these transactions; its height."""
    config = get_config(net)
    store = LevelDbStore(config.chain_directory / STORE_NAME)
    try:
        *_, last = verify_store(store, read_genesis_file(config.genesis_file), load_table())
        assert all(chain_store.find_transaction_place(store, tx_id) is not None for tx_id in paid)
    finally:
        store.close()
    return last.height


def fail_after(count: int, error: Exception, act: Callable[..., None]) -> Callable[..., None]:
    """``act``, until it has been called so often; then it raises."""
    calls = 0

    def acting(*arguments: object, **named: object) -> None:
        nonlocal calls
        calls += 1
        if calls > count:
            raise error
        act(*arguments, **named)

    return acting


@pytest.mark.parametrize("reason", ["disk_full", "permission_missing", "store_not_usable"])
async def test_a_store_that_takes_no_more_stops_the_node_and_nothing_told_is_lost(
    net: Testnet, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paid: list[Hash] = []
    with monkeypatch.context() as patch:
        patch.setattr(LevelDbStore, "write", fail_after(4, StoreError(reason, "state"), LevelDbStore.write))
        async with running(net) as node:
            await pay_until_it_stops(node, paid)
            error = await asyncio.wait_for(node.runtime.wait_stopped(), TIMEOUT_MS / 1000)
    assert error is not None
    assert str(error) == f"{reason}: state"
    assert paid
    height = check_store(net, paid)
    async with running(net) as node:
        assert await node.pay_in(1_000) is not None
        assert node.runtime.core.header.height > height


async def test_every_batch_of_the_chain_is_written_with_a_sync(net: Testnet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store of the simulator never loses a batch at a power cut: so this is what a real one must be asked for."""
    write, written = LevelDbStore.write, list[bool]()

    def note(store: LevelDbStore, changes: Changes, *, sync: bool = True) -> None:
        written.append(sync)
        write(store, changes, sync=sync)

    monkeypatch.setattr(LevelDbStore, "write", note)
    async with running(net) as node:
        assert await node.pay_in(1) is not None
        height = node.runtime.core.header.height
    assert written == [True] * (1 + height)  # genesis, and one batch a block


async def pay_until_it_stops(node: Lone, paid: list[Hash]) -> None:
    for number in range(20):
        tx_id = await node.pay_in(number, timeout_ms=500)
        if tx_id is None:
            return
        paid.append(tx_id)
    raise AssertionError("it did not stop")


@pytest.mark.parametrize(
    ("code", "reason"), [(errno.ENOSPC, "disk_full"), (errno.EROFS, "permission_missing"), (errno.EIO, "journal_not")]
)
@pytest.mark.parametrize("written", [0, 1, 40])
async def test_a_journal_that_takes_no_more_stops_the_node_before_it_says_anything(
    net: Testnet, code: int, reason: str, written: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    paid: list[Hash] = []
    whole = journal._write_all
    budget = 7

    def write_some(descriptor: int, data: bytes) -> None:
        nonlocal budget
        budget -= 1
        if budget < 0:
            whole(descriptor, data[:written])  # as a disk that fills up in the middle of a record
            raise OSError(code, os.strerror(code))
        whole(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(journal, "_write_all", write_some)
        async with running(net) as node:
            await pay_until_it_stops(node, paid)
            error = await asyncio.wait_for(node.runtime.wait_stopped(), TIMEOUT_MS / 1000)
    assert error is not None
    assert error.reason.startswith(reason)
    check_store(net, paid)
    async with running(net) as node:
        assert await node.pay_in(1_000) is not None


async def test_a_store_that_cannot_be_read_stops_the_node(net: Testnet, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(net) as node:
        assert await node.pay_in(1) is not None

        def fail(_self: LevelDbStore, _key: bytes) -> bytes | None:
            raise CorruptStore("block checksum mismatch")

        monkeypatch.setattr(LevelDbStore, "get", fail)
        assert await node.pay_in(2, timeout_ms=500) is None
        error = await asyncio.wait_for(node.runtime.wait_stopped(), TIMEOUT_MS / 1000)
    assert str(error) == "store_corrupt: block checksum mismatch"


async def test_a_damaged_database_is_refused_or_whole_and_never_shorter_unnoticed(net: Testnet) -> None:
    paid: list[Hash] = []
    async with running(net) as node:
        for number in range(6):
            tx_id = await node.pay_in(number)
            assert tx_id is not None
            paid.append(tx_id)
    chain = get_config(net).chain_directory
    good = chain.with_name("good")
    shutil.copytree(chain, good)
    outcomes = set()
    (log,) = (good / STORE_NAME).glob("*.log")
    for place in range(0, log.stat().st_size, max(1, log.stat().st_size // 40)):
        shutil.rmtree(chain)
        shutil.copytree(good, chain)
        damaged = bytearray(log.read_bytes())
        damaged[place] ^= 0x55
        (chain / STORE_NAME / log.name).write_bytes(damaged)
        try:
            # What the database dropped, the journal knows of: the last block is decided once more from there.
            async with running(net) as node:
                assert await node.pay_in(1_000 + place) is not None
            check_store(net, paid)
            outcomes.add("whole again")
        except LocalError as error:
            outcomes.add(error.reason)
    assert outcomes == {"store_corrupt", "whole again"}


@asynccontextmanager
async def small_disk(directory: Path) -> AsyncIterator[None]:
    """A file system of its own, with little room. Skips where that is not allowed."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small tmpfs needs root")
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    said = await run_program("mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "tmpfs", str(directory))
    if said:
        pytest.skip(f"a tmpfs cannot be mounted: {said}")
    try:
        yield
    finally:
        assert not await run_program("umount", "-l", str(directory))


async def run_program(*words: str) -> str:
    """What a program says when it fails, else nothing."""
    process = await asyncio.create_subprocess_exec(*words, stderr=asyncio.subprocess.PIPE)
    _, err = await process.communicate()
    return err.decode().strip() or f"status {process.returncode}" if process.returncode else ""


def fill_up(path: Path) -> None:
    """Take all the room that is left."""
    with path.open("wb", buffering=0) as stream:
        for size in (1 << 20, 1 << 12, 1):
            with pytest.raises(OSError, match="No space left"):
                write_for_ever(stream, size)


def write_for_ever(stream: FileIO, size: int) -> None:
    while True:
        stream.write(b"\xff" * size)


async def test_a_disk_that_is_really_full_stops_the_process_with_the_word(tmp_path: Path) -> None:
    net = Testnet.create(tmp_path / "net", validators=1, block_ms=50, base_port=0)
    async with small_disk(get_config(net).chain_directory):
        paid: list[Hash] = []
        async with running(net) as node:
            for number in range(3):
                tx_id = await node.pay_in(number)
                assert tx_id is not None
                paid.append(tx_id)
            ballast = get_config(net).chain_directory / "ballast"
            fill_up(ballast)
            for number in range(100, 400):  # what was allocated already may take a few
                if await node.pay_in(number, timeout_ms=500) is None:
                    break
            error = await asyncio.wait_for(node.runtime.wait_stopped(), TIMEOUT_MS / 1000)
        assert error is not None
        assert error.reason == "disk_full"
        status, _, said = await run_command("node", "start", "--home", net.get_home(0))
        assert status == 2
        assert "disk_full" in said
        ballast.unlink()
        check_store(net, paid)
        async with running(net) as node:
            assert await node.pay_in(1_000) is not None


async def test_a_new_home_joins_from_a_snapshot_and_a_lost_one_goes_back(tmp_path: Path) -> None:
    async with running_network(tmp_path / "net") as network:
        testnet = network.net
        for cents in range(1, 6):
            await network.wait((await network.issue(cents)).tx_id)
        home, snapshot = testnet.get_home(3), tmp_path / "snapshot.wps"
        await stop_one(testnet, 3)
        exported = await run_json("node", "export-state", snapshot, "--home", home)
        await network.wait((await network.issue(10)).tx_id, 0, 1, 2)
        assert (await run_command("node", "import-state", snapshot, "--home", home))[0] == 2  # it has a chain
        shutil.rmtree(read_config(home).chain_directory)
        damaged = tmp_path / "damaged.wps"
        damaged.write_bytes(snapshot.read_bytes().replace(b"payment", b"Payment", 1))
        status, _, said = await run_command("node", "import-state", damaged, "--home", home)
        assert status == 1
        assert "chunk_hash_differs" in said
        assert not (read_config(home).chain_directory / STORE_NAME).exists()
        imported = await run_json("node", "import-state", snapshot, "--home", home)
        assert {imported[name] == exported[name] for name in ("height", "state_root", "snapshot_id")} == {True}
        await testnet.restart(3, timeout_ms=TIMEOUT_MS)
        last = await network.issue(20)
        assert (await network.wait(last.tx_id))[3]["status"] == "committed"
        assert (await network.clients[3].chain_status())["is_validator"] is False  # its journal is gone
        await stop_one(testnet, 3)
        height = int(str(exported["height"])) + 1
        back = await run_json("node", "rollback", "--to", height, "--snapshot", snapshot, "--home", home)
        assert back["height"] == height
        await testnet.restart(3, timeout_ms=TIMEOUT_MS)
        assert (await network.wait(last.tx_id))[3]["status"] == "committed"
        await stop_one(testnet, 3)
        verified = await run_json("node", "verify", "--home", home)
        assert verified["verified"] is True
        pruned = await run_json("node", "prune", "--retain", 1, "--home", home)
        assert pruned["oldest_height"] == verified["oldest_height"]  # evidence may still speak of all of it


async def test_rolled_back_to_a_height_of_its_own_blocks_the_journal_is_kept(net: Testnet) -> None:
    async with running(net) as node:
        for number in range(4):
            assert await node.pay_in(number) is not None
    home = net.get_home(0)
    done = await run_json("node", "rollback", "--to", 2, "--home", home)
    assert done["height"] == 2
    chain = get_config(net).chain_directory
    assert not (chain / JOURNAL_NAME).exists()
    assert (chain / f"{JOURNAL_NAME}.aside-1").exists()
    assert check_store(net, []) == 2
    assert (await run_command("node", "rollback", "--to", 2, "--home", home))[0] == 1
    assert (await run_json("node", "rollback", "--home", home))["height"] == 1  # one block, unless told otherwise
    assert (await run_json("node", "rollback", "--home", home))["height"] == 0
    assert (await run_command("node", "rollback", "--home", home))[0] == 2


async def test_a_new_home_takes_the_snapshot_that_its_peers_agree_on_and_follows(tmp_path: Path) -> None:
    net = Testnet.create(tmp_path / "net", validators=4, block_ms=20, base_port=0)
    upkeep = Upkeep(snapshot_blocks=5)
    async with running(net, 0, upkeep) as first, running(net, 1, upkeep), running(net, 2, upkeep):
        for number in range(12):
            assert await first.pay_in(number) is not None
        await join_by_snapshot(net.get_home(3))
        chain = read_config(net.get_home(3)).chain_directory
        assert [one.name for one in chain.iterdir()] == [STORE_NAME]
        async with running(net, 3) as joined:
            height = joined.runtime.core.header.height
            assert height >= 5
            tx_id = await first.pay_in(100)
            assert tx_id is not None
            await joined.wait(tx_id)
            assert joined.runtime.get_status().is_validator is False
    status, out, _ = await run_command("node", "verify", "--json", "--home", net.get_home(3))
    assert status == 0
    assert json.loads(out)["executed"] is False or height < 1_000


async def stop_one(net: Testnet, index: int) -> None:
    """Kill a node, and wait until its files are free."""
    net.kill(index)
    for _ in range(TIMEOUT_MS // 20):
        if net.find_pid(index) is None:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it does not end")


async def run_json(*words: object) -> Mapping[str, object]:
    """A command that succeeds, and what it shows."""
    status, out, err = await run_command(*words, "--json")
    assert status == 0, err
    shown: dict[str, object] = json.loads(out)
    return shown
