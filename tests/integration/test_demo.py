"""The demo itself, over one day: every check holds, the document says so, the nodes are gone afterwards."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any, Final

import pytest
from rich.console import Console

from node.demo import DemoOptions, run
from node.demo.data import DemoError
from node.demo.summary import render_summary
from node.testnet import Testnet

BLOCK_MS: Final = 100
WIDTH: Final = 100
TITLES: Final = (
    "Who bought the output of g04 solar?",
    "Where did the energy of c17 business come from?",
    "Hour by hour",
    "What was tried and refused",
    "kill -9 of node3",
    "Conservation, audited",
    "The validators at height",
    "Every check",
)


def make_console() -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, width=WIDTH, color_system=None), stream


def is_anyone_running(directory: Path) -> bool:
    return any(node.pid is not None for node in Testnet.open(directory).list_nodes())


async def test_a_day_of_the_demo_holds_every_check(tmp_path: Path) -> None:
    console, stream = make_console()
    directory = tmp_path / "demo"
    options = DemoOptions(days=1, directory=directory, as_json=True, block_ms=BLOCK_MS)
    status = await run(options, console)
    document: dict[str, Any] = json.loads(stream.getvalue())
    assert "error" not in document, document["error"]
    assert [one for one in document["checks"] if not one["holds"]] == []
    assert (status, document["ok"]) == (0, True)
    assert len(document["checks"]) > 40
    check_document(document)
    check_look(document)
    assert not is_anyone_running(directory)


def check_document(document: dict[str, Any]) -> None:
    """What the document shows adds up, computed once more from its parts."""
    plant, buyer, lost = document["plant"], document["buyer"], document["outage"]
    assert sum(row["wh"] for row in plant["rows"]) == plant["metered_wh"] > 0
    assert sum(source["wh"] for source in buyer["sources"]) == buyer["claimed_wh"] > 0
    assert sum(hour["consumed_wh"] for hour in buyer["hours"]) == buyer["consumed_wh"]
    assert all(sum(hour["sources_wh"].values()) == hour["claimed_wh"] for hour in buyer["hours"])
    assert lost["killed_at_height"] < lost["others_at_height"] <= lost["caught_up_at_height"]
    assert len({row["state_root"] for row in document["nodes"]["rows"]}) == 1
    assert len(document["nodes"]["rows"]) == 4
    assert document["audit"]["holds"]
    assert {row["reason"] for row in document["refusals"]} == {
        "dues_outstanding",
        "reading_signature_invalid",
        "sequence_not_rising",
        "slice_already_claimed",
        "credits_not_sufficient",
        "range_outside_lot",
        "signer_unknown",
        "document_of_another",
    }
    assert document["figures"]["intervals"] == 31 * 96


def check_look(document: dict[str, Any]) -> None:
    """The summary has all its sections, and no line is wider than it may be."""
    console, stream = make_console()
    render_summary(document, console)
    text = stream.getvalue()
    assert [title for title in TITLES if title not in text] == []
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "✗" not in text
    document["checks"][0]["holds"] = False
    console, stream = make_console()
    render_summary(document, console)
    assert f"✗ 1 of {len(document['checks'])} checks do not hold" in stream.getvalue()


async def test_interrupted_it_stops_its_nodes(tmp_path: Path) -> None:
    console, _ = make_console()
    directory = tmp_path / "demo"
    playing = asyncio.create_task(run(DemoOptions(days=1, directory=directory, block_ms=BLOCK_MS), console))
    async with asyncio.timeout(30):
        while not (directory / "testnet.json").exists() or not is_anyone_running(directory):
            await asyncio.wait([playing], timeout=0.05)
            assert not playing.done()
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert not is_anyone_running(directory)


async def test_a_step_that_fails_names_the_logs_and_exits_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Testnet, "start", fail_to_start)
    console, stream = make_console()
    directory = tmp_path / "demo"
    assert await run(DemoOptions(days=1, directory=directory), console) == 1
    text = " ".join(stream.getvalue().split())
    assert "demo_node_left_behind" in text
    assert "node*/node.log" in text
    assert (directory / "node0").is_dir()


async def fail_to_start(_testnet: Testnet) -> None:
    raise DemoError("demo_node_left_behind", "as the test wants it")
