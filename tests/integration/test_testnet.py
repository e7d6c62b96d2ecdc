"""Four real processes on loopback: they agree, survive kills at any point, and can be checked from genesis."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.block import compute_block_id
from ledger.primitives import PublicKey
from ledger.storage import STATE
from node.chain_store import find_certificate, get_header
from node.config import read_config
from node.forks import FORK_SEEN, Fork, compute_fork_changes, make_final_header
from node.launch import FOLLOWER_JOURNAL_NAME, JOURNAL_NAME, STORE_NAME
from node.leveldb_store import LevelDbStore
from node.readiness import READY
from node.testnet import PID_NAME, Testnet, TestnetError
from tests.integration.processes import TIMEOUT_MS, running_network

ROOT = Path(__file__).resolve().parent.parent.parent


async def run_command(*words: object, **environment: str) -> tuple[int, str, str]:
    """Run the command line as a process of its own: exit status, stdout, stderr."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WATTPRINT_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "node", *map(str, words)),
        cwd=ROOT,
        env={**clean, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    assert b"Traceback" not in out + err
    return process.returncode, out.decode(), err.decode()


async def test_one_validator_is_killed_the_others_go_on_and_it_catches_up(tmp_path: Path) -> None:
    async with running_network(tmp_path / "net") as network:
        issued = await network.issue(1_000)
        assert {answer["status"] for answer in await network.wait(issued.tx_id)} == {"committed"}
        network.net.kill(3)
        done = [await network.transfer(cents, at=cents % 3) for cents in range(1, 6)]
        await network.wait(done[-1].tx_id, 0, 1, 2)
        assert network.net.find_pid(3) is None
        await network.net.restart(3, timeout_ms=TIMEOUT_MS)
        await network.wait(done[-1].tx_id)
        after = await network.transfer(100, at=3)
        await network.wait(after.tx_id)
        assert after.height is not None
        assert len(await network.get_roots(after.height)) == 1
        assert await network.get_balances(network.consumer) == {1_000 - 15 - 100}


async def test_all_are_killed_and_the_chain_resumes_and_verifies_from_genesis(tmp_path: Path) -> None:
    async with running_network(tmp_path / "net") as network:
        net = network.net
        await network.wait((await network.issue(1_000)).tx_id)
        before = await network.transfer(10)
        for index in range(4):
            net.kill(index)
        await net.start(timeout_ms=TIMEOUT_MS)
        assert (await network.wait(before.tx_id))[0]["height"] == before.height
        after = await network.transfer(20, at=2)
        await network.wait(after.tx_id)
        assert after.height is not None
        roots = await network.get_roots(after.height)
        assert len(roots) == 1
        assert len(await net.stop()) == 4
        results = [await run_command("node", "verify", "--json", "--home", net.get_home(i)) for i in range(2)]
        assert [status for status, _, _ in results] == [0, 0]
        verified = [json.loads(out) for _, out, _ in results]
        assert {one["height"] >= after.height and one["verified"] for one in verified} == {True}
        tamper(net.get_home(0))
        status, out, err = await run_command("node", "verify", "--home", net.get_home(0))
        assert (status, out) == (1, "")
        assert "stored_state_differs" in err


def tamper(home: Path) -> None:
    """Change one value of the stored state, as a person with access to the disk could."""
    store = LevelDbStore(read_config(home).chain_directory / STORE_NAME)
    key, value = next(iter(store.scan(STATE + b"cb", STATE + b"cc")))
    store.write({key: value[:-1] + bytes([value[-1] ^ 1])}, sync=True)
    store.close()


async def test_a_network_that_knows_of_a_fork_starts_is_not_ready_and_is_again_when_it_is_dealt_with(
    tmp_path: Path,
) -> None:
    async with running_network(tmp_path / "net") as network:
        net = network.net
        done = await network.wait((await network.issue(1_000)).tx_id)
        height = done[0]["height"]
        await net.stop()
        note_fork(net.get_home(0), height)
        await net.start(timeout_ms=TIMEOUT_MS)
        assert [await net.ask_readiness(index) for index in range(2)] == [FORK_SEEN, READY]
        assert (await network.clients[0].chain_status())["forks"] == [height]
        assert [one["height"] for one in (await network.clients[0].chain_forks())["forks"]] == [height]
        await net.stop()
        status, out, _ = await run_command("node", "clear-forks", "--home", net.get_home(0))
        assert (status, f"height {height} was decided twice" in out) == (0, True)
        await net.start(timeout_ms=TIMEOUT_MS)
        assert await net.ask_readiness(0) == READY


def note_fork(home: Path, height: int) -> None:
    """As if a peer had shown another block of this height."""
    store = LevelDbStore(read_config(home).chain_directory / STORE_NAME)
    header, certificate = get_header(store, height), find_certificate(store, height)
    assert certificate is not None
    other = replace(header, time_ms=header.time_ms + 1)
    again = make_final_header(other, replace(certificate, block_id=compute_block_id(other)))
    seen = Fork(PublicKey(bytes(32)), 0, make_final_header(header, certificate), again)
    store.write(compute_fork_changes(store, seen), sync=True)
    store.close()


async def test_two_are_killed_nothing_is_lost_and_the_chain_goes_on_when_they_return(tmp_path: Path) -> None:
    async with running_network(tmp_path / "net") as network:
        await network.wait((await network.issue(1_000)).tx_id)
        network.net.kill(1)
        network.net.kill(2)
        pending = await network.transfer(30, wait="admitted")
        assert pending.status == "pending"
        height = (await network.clients[0].chain_status())["height"]
        await network.net.start(timeout_ms=TIMEOUT_MS)
        committed = (await network.wait(pending.tx_id))[0]
        assert committed["height"] > height
        assert len(await network.get_roots(committed["height"])) == 1


async def test_a_node_that_lost_its_journal_follows_and_signs_nothing(tmp_path: Path) -> None:
    async with running_network(tmp_path / "net") as network:
        await network.wait((await network.issue(1_000)).tx_id)
        network.net.kill(3)
        chain = read_config(network.net.get_home(3)).chain_directory
        (chain / JOURNAL_NAME).unlink()
        await network.net.restart(3, timeout_ms=TIMEOUT_MS)
        await network.wait((await network.transfer(1)).tx_id)
        assert (await network.clients[3].chain_status())["is_validator"] is False
        assert not (chain / JOURNAL_NAME).exists()
        assert (chain / FOLLOWER_JOURNAL_NAME).exists()
        assert "journal missing" in (network.net.get_home(3) / "node.log").read_text()


async def test_the_command_line_walks_the_whole_way(tmp_path: Path) -> None:
    directory = tmp_path / "net"
    start = (
        "testnet",
        "start",
        "--detach",
        "--json",
        "--directory",
        directory,
        "--base-port",
        "0",
        "--validators",
        "1",
    )
    status, out, err = await run_command(*start, "--block-ms", "100")
    assert (status, err) == (0, "")
    started = json.loads(out)
    try:
        environment = {"WATTPRINT_NODE": started["nodes"][0]["url"], "WATTPRINT_KEY": started["keyring"]["utility"]}
        consumer = started["keyring"]["consumer"]
        issue = ("credit", "issue", "--holder", consumer, "--amount-cents", "500", "--payment-reference", "bank-1")
        assert (await run_command(*issue, **environment))[0] == 0
        status, _, err = await run_command(*issue, **environment)
        assert (status, "payment_reference_already_used" in err) == (1, True)
        transfer = ("credit", "transfer", "--recipient", started["keyring"]["prosumer"], "--amount-cents", "70")
        assert (await run_command(*transfer, "--key", consumer, **environment))[0] == 0
        _, out, _ = await run_command("credit", "balance", consumer, "--json", **environment)
        assert json.loads(out)["balance_cents"] == 430
        again = await run_command(*start)
        assert (again[0], json.loads(again[1])["nodes"]) == (0, started["nodes"])
        pid = started["nodes"][0]["pid"]
        assert (
            json.loads((await run_command("testnet", "kill", "0", "--directory", directory, "--json"))[1])["pid"] == pid
        )
        assert (await run_command("credit", "balance", consumer, **environment))[0] == 3
    finally:
        status, out, _ = await run_command("testnet", "stop", "--directory", directory, "--json")
    assert (status, json.loads(out)) == (0, {"stopped": []})


async def test_ctrl_c_in_front_of_a_network_stops_every_node(tmp_path: Path) -> None:
    directory = tmp_path / "net"
    net = Testnet.create(directory, validators=2, base_port=0, block_ms=100)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "node", "testnet", "start", "--directory", str(directory)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert b"2 validators run" in await process.stdout.readline()
        assert [node.pid is not None for node in net.list_nodes()] == [True, True]
        process.send_signal(signal.SIGINT)
        await process.communicate()
    finally:
        await net.stop()
    assert process.returncode == 0
    assert [node.pid for node in net.list_nodes()] == [None, None]


async def test_a_process_that_is_not_ours_is_never_signalled(tmp_path: Path) -> None:
    net = Testnet.create(tmp_path / "net", validators=1, base_port=0)
    (net.get_home(0) / PID_NAME).write_text(f"{os.getpid()}\n")
    assert net.find_pid(0) is None
    with pytest.raises(TestnetError, match="node_not_running"):
        net.kill(0)
    assert await net.stop() == []


async def test_a_node_that_cannot_start_says_why(tmp_path: Path) -> None:
    net = Testnet.create(tmp_path / "net", validators=1, base_port=0)
    (net.get_home(0) / "genesis.json").write_text("{")
    with pytest.raises(TestnetError, match="node_ended_at_start: node0: wattprint: genesis_not_usable"):
        await net.start(timeout_ms=TIMEOUT_MS)
    taken = socket.create_server(("127.0.0.1", int(net.get_url(0)[-5:])))
    with taken, pytest.raises(TestnetError, match="port_taken"):
        await net.start(timeout_ms=TIMEOUT_MS)
