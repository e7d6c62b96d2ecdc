"""The demo's story, from the consortium's first block to the last check: what ``wattprint demo`` plays.

Touches the world (processes, a temporary directory). Whatever happens, the nodes are stopped; after a failure their
logs are kept and named.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from ledger.fields import Json
from ledger.parameters import Parameters
from node.client_errors import ClientError
from node.demo import documents, money, plan, questions, refusals, setup, trade
from node.demo.data import DATA_DIRECTORY, Community, load_community
from node.demo.narrator import Narrator
from node.demo.network import Network
from node.demo.people import make_cast
from node.demo.stage import Stage
from node.demo.summary import render_summary
from node.errors import LocalError
from node.jsonrpc import dump
from node.testnet import LOG_NAME, Testnet

VALIDATORS: Final = 4
BLOCK_MS: Final = 500
DAYS_DEFAULT: Final = 7
WIDTH_MAX: Final = 100
CHAIN_ID: Final = "demo-village"
# The readings are of 2016. A real chain lets lots expire after a year or two; here they must still be claimable.
LOT_LIFETIME_S: Final = 30 * 366 * 86_400
ENDING_SIGNALS: Final = (signal.SIGHUP, signal.SIGTERM)
DONE: Final = 0
FAILED: Final = 1


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What a person may choose. A ``directory`` that is named is kept, as with ``keep``."""

    days: int = DAYS_DEFAULT
    directory: Path | None = None
    keep: bool = False
    as_json: bool = False
    block_ms: int = BLOCK_MS
    data: Path = DATA_DIRECTORY


async def run(options: DemoOptions, console: Console) -> int:
    """Play the story: 0 if every check held, else 1. Raises ``LocalError`` when it cannot even begin."""
    community = load_community(options.data, days=options.days)
    console.width = min(WIDTH_MAX, console.width) if console.is_terminal else WIDTH_MAX
    narrator = Narrator(console, is_silent=options.as_json, is_animated=not os.environ.get("CI"))
    directory = options.directory or Path(tempfile.mkdtemp(prefix="wattprint-demo-"))
    testnet = Testnet.create(
        directory,
        validators=VALIDATORS,
        block_ms=options.block_ms,
        base_port=0,
        chain_id=CHAIN_ID,
        parameters=Parameters(lot_lifetime_s=LOT_LIFETIME_S),
    )
    _tell_beginning(narrator, community)
    has_succeeded = is_interrupted = False
    try:
        with _ending_with_the_terminal():
            document = await _play(community, testnet, narrator)
        has_succeeded = bool(document["ok"])
        _show(document, options, console)
    except (ClientError, LocalError) as error:
        reason = f"{type(error).__name__}: {error}"
        document = {"ok": False, "error": reason, "steps": [step.to_json() for step in narrator.steps]}
        if options.as_json:
            _show(document, options, console)
        narrator.say(f"\n✗ after step {len(narrator.steps)}: {reason}", "bold red")
    except asyncio.CancelledError:
        is_interrupted = True
        raise
    finally:
        await testnet.stop()
        if options.keep or options.directory is not None or not (has_succeeded or is_interrupted):
            _tell_where(narrator, testnet, has_succeeded=has_succeeded)
        else:
            testnet.remove()
    return DONE if has_succeeded else FAILED


@contextmanager
def _ending_with_the_terminal() -> Iterator[None]:
    """A closed terminal and a polite kill end the story as Ctrl-C does, so that no node outlives it."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None, "a coroutine runs in a task"
    for number in ENDING_SIGNALS:
        loop.add_signal_handler(number, task.cancel)
    try:
        yield
    finally:
        for number in ENDING_SIGNALS:
            loop.remove_signal_handler(number)


async def _play(community: Community, testnet: Testnet, narrator: Narrator) -> dict[str, Json]:
    """Every step in its order; the document that the summary is drawn from."""
    parts = plan.allocate(community)
    started_s = asyncio.get_running_loop().time()
    with narrator.step("The consortium", VALIDATORS) as step:
        await testnet.start()
        step.text = (
            f"{testnet.count} validators agree on this machine, each its own process and disk; genesis names an "
            "admin, two utilities, an auditor, a fulfilment manager and an oracle"
        )
    async with Network(testnet.urls) as network:
        stage = Stage(
            community=community,
            sales=plan.group_sales(community, parts),
            hours=plan.group_hours(parts),
            cast=make_cast(community, testnet.load_key),
            testnet=testnet,
            network=network,
            narrator=narrator,
        )
        for act in (
            setup.register_people,
            setup.submit_readings,
            trade.pay_in,
            trade.buy,
            trade.use,
            money.redeem,
            money.deposit,
            documents.exchange,
            refusals.try_what_must_fail,
            questions.ask_all,
        ):
            await act(stage)
    elapsed_ms = int((asyncio.get_running_loop().time() - started_s) * 1_000)
    return {
        "ok": stage.checks.holds,
        "chain_id": CHAIN_ID,
        "days": community.days,
        "start_ms": community.start_ms,
        "elapsed_ms": elapsed_ms,
        "steps": [step.to_json() for step in narrator.steps],
        **stage.facts,
        "refusals": stage.refusals,
        "checks": stage.checks.to_json(),
    }


def _show(document: dict[str, Json], options: DemoOptions, console: Console) -> None:
    if options.as_json:
        console.print(dump(document).decode(), markup=False, highlight=False, soft_wrap=True)
    else:
        render_summary(document, console)


def _tell_beginning(narrator: Narrator, community: Community) -> None:
    days = "one day" if community.days == 1 else f"{community.days} days"
    narrator.say()
    narrator.say(f" Wattprint: {days} of a village, settled by four authorities", "bold")
    narrator.say(
        f" SimBench community, June 2016 (ODbL 1.0): {len(community.producers)} producers, "
        f"{len(community.consumers)} consumers.",
        "dim",
    )
    narrator.say(" The readings are of 2016, so lots of this chain live 30 years instead of two.", "dim")
    narrator.say()


def _tell_where(narrator: Narrator, testnet: Testnet, *, has_succeeded: bool) -> None:
    narrator.say()
    if not has_succeeded:
        narrator.say(f" The nodes' logs: {testnet.directory}/node*/{LOG_NAME}")
    narrator.say(f" The chain is kept in {testnet.directory}; start it again with")
    narrator.say(f"   wattprint testnet start --directory {testnet.directory}")
