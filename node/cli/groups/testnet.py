"""``wattprint testnet``: start, stop, look at and disturb a test network on this machine.

Owns the commands only; homes and processes are node/testnet.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import Any, Final, cast

import click

from ledger.fields import Json
from node.cli.options import URL_DEFAULT, Common, make_client, with_common
from node.cli.output import note, show, show_rows
from node.client import ClientError
from node.readiness import READY
from node.testnet import (
    BASE_PORT_DEFAULT,
    BLOCK_MS_DEFAULT,
    VALIDATORS_DEFAULT,
    VALIDATORS_MAX,
    Testnet,
    TestnetError,
)

DIRECTORY_DEFAULT: Final = "testnet"

_directory = click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=DIRECTORY_DEFAULT,
    show_default=True,
    metavar="DIR",
    help="Holds a home per node, genesis.json and keyring/.",
)
_index = click.argument("index", type=int, metavar="N")


@click.group()
def command() -> None:
    """Run several validators on this machine, with a ready key for each role.

    \b
    Example:
      wattprint testnet start --detach
      wattprint testnet status
      wattprint testnet kill 3
      wattprint testnet restart 3
      wattprint testnet stop
    """


@command.command()
@click.option("--validators", type=click.IntRange(1, VALIDATORS_MAX), default=VALIDATORS_DEFAULT, show_default=True)
@_directory
@click.option(
    "--base-port",
    type=click.IntRange(0, 65_535),
    default=BASE_PORT_DEFAULT,
    show_default=True,
    help="Node i answers JSON-RPC on this + 2i and its peers on the port after it; 0: any free ports.",
)
@click.option("--detach", is_flag=True, help="Return when all nodes answer; without it Ctrl-C stops them.")
@click.option(
    "--block-ms",
    type=click.IntRange(10, 60_000),
    default=BLOCK_MS_DEFAULT,
    show_default=True,
    help="The least time between two blocks.",
)
@with_common
def start(common: Common, *, validators: int, directory: Path, base_port: int, detach: bool, block_ms: int) -> None:
    """Start a test network, making it first if the directory has none.

    A directory that has one keeps its chain and its keys; --validators, --base-port and --block-ms then do not apply.
    """
    if Testnet.exists(directory):
        net = Testnet.open(directory)
    else:
        net = Testnet.create(directory, validators=validators, block_ms=block_ms, base_port=base_port)
    asyncio.run(_start(common, net, detach=detach))


async def _start(common: Common, net: Testnet, *, detach: bool) -> None:
    told = asyncio.Event()
    try:
        await net.start()
        if not detach:
            # Before anything is printed: whoever reads it may answer with a signal at once.
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, told.set)
        show(common, _describe(net), _format_started(net))
        if detach:
            return
        note(common, "Ctrl-C stops the network.")
        await told.wait()
    except (TestnetError, asyncio.CancelledError):
        await net.stop()
        raise
    stopped = await net.stop()
    note(common, f"stopped {len(stopped)} nodes")


@command.command()
@_directory
@click.option("--remove", is_flag=True, help="Delete the directory afterwards: the chain and the keys are gone.")
@with_common
def stop(common: Common, directory: Path, remove: bool) -> None:
    """Stop every node of a test network; its chain stays and goes on at the next start."""
    net = Testnet.open(directory)
    stopped = net.stop_now()
    if remove:
        net.remove()
    show(common, {"stopped": [f"node{index}" for index in stopped]}, f"stopped {len(stopped)} of {net.count} nodes")


@command.command()
@_directory
@with_common
def status(common: Common, directory: Path) -> None:
    """How each node stands: its process, its ports, whether it is ready, its height and state root."""
    net = Testnet.open(directory)
    rows = asyncio.run(_ask_all(net))
    document: dict[str, Json] = {"directory": str(net.directory), "nodes": cast("list[Json]", rows)}
    show_rows(common, document, rows)


async def _ask_all(net: Testnet) -> list[dict[str, Json]]:
    return list(await asyncio.gather(*(_ask(node_url, net, index) for index, node_url in enumerate(net.urls))))


async def _ask(url: str, net: Testnet, index: int) -> dict[str, Json]:
    pid = net.find_pid(index)
    row: dict[str, Json] = {"node": f"node{index}", "pid": pid, "url": url, "ready": False}
    row |= {"height": None, "state_root": None, "peers": None}
    if pid is None:
        return row
    with contextlib.suppress(ClientError):
        async with make_client(url) as client:
            answer: dict[str, Any] = await client.chain_status()
        row |= {"height": answer["height"], "state_root": answer["state_root"], "peers": len(answer["peers"])}
    row["ready"] = await net.ask_readiness(index) == READY
    return row


@command.command()
@_directory
@_index
@with_common
def kill(common: Common, directory: Path, index: int) -> None:
    """Kill node N at once (SIGKILL), as a power cut would. The others go on if they are still a quorum."""
    pid = Testnet.open(directory).kill(index)
    show(common, {"node": f"node{index}", "pid": pid, "killed": True}, f"node{index} (process {pid}) is killed")


@command.command()
@_directory
@_index
@with_common
def restart(common: Common, directory: Path, index: int) -> None:
    """Start node N again, stopping it first if it runs; it catches up by itself."""
    pid = asyncio.run(Testnet.open(directory).restart(index))
    show(common, {"node": f"node{index}", "pid": pid}, f"node{index} runs again (process {pid})")


def _describe(net: Testnet) -> Json:
    keyring = sorted(net.list_keys())
    return {
        "directory": str(net.directory),
        "genesis": str(net.genesis_path),
        "keyring": {name: str(net.get_key_path(name)) for name in keyring},
        "nodes": [
            {"node": f"node{one.index}", "pid": one.pid, "url": one.rpc_url, "p2p_port": one.p2p_port}
            for one in net.list_nodes()
        ],
    }


def _format_started(net: Testnet) -> str:
    lines = [f"{net.count} validators run; node0 answers at {net.get_url(0)}", f"keys: {net.get_key_path('*')}"]
    if net.get_url(0) != URL_DEFAULT:
        lines.append(f"export WATTPRINT_NODE={net.get_url(0)}")
    return "\n".join(lines)
