"""Audit, exports, statements and pictures over a real chain: what the commands write is what the ledger has."""

from __future__ import annotations

import asyncio
import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from contracts_native.lots import SliceRef
from contracts_native.slices import SliceStatus
from node.cli.asking import make_offline_ask
from node.exports import TABLES, Cell, Wanted
from node.queries.lot_ids import format_lot_id
from node.queries.trace import trace_holder
from node.statements import format_count, format_mwh, make_page, make_statement
from node.trace_picture import FLOWS_MAX, draw_source
from tests.contracts_native.harness import BOB, DAY_0_MS, DAY_MS, list_lots
from tests.contracts_native.trade import make_market
from tests.node.books_chain import make_books, make_node
from tests.node.fake_node import FakeNode
from tests.node.query_answers import text
from tests.node.query_chain import QueryChain
from tests.node.test_parquet import read

JUNE = ("--from", "2024-06-01", "--until", "2024-07-01")
STATEMENT_OF_JUNE = ("claim", "statement", text(BOB), *JUNE)


@pytest.fixture(scope="module")
def books() -> QueryChain:
    return make_books()


@pytest.fixture
def node(books: QueryChain) -> FakeNode:
    return make_node(books)


# — audit —


def test_an_audit_that_holds_shows_each_sum_and_ends_with_0(node: FakeNode) -> None:
    result = node.run("audit")
    assert result.exit_code == 0
    assert re.search(r"hourly claims are within consumption +60 +≤ +380", result.stdout)
    assert re.search(r"(\d+) of \1 sums hold at height", result.stdout)


def test_an_audit_that_fails_ends_with_1_and_names_what_is_at_fault(node: FakeNode) -> None:
    answer = node.run_json("audit")
    broken = {**answer["sums"][0], "right": 1, "faults": ["lot:1"], "faults_count": 1, "holds": False}
    node.answers["chain_audit"] = {**answer, "holds": False, "sums": [broken, *answer["sums"][1:]]}
    result = node.run("audit")
    assert result.exit_code == 1
    assert "1 at fault: lot:1" in result.stdout
    assert node.run("audit", "--json").exit_code == 1


def test_an_audit_of_a_home_that_never_ran_says_so(node: FakeNode, tmp_path: Path) -> None:
    result = node.run("audit", "--offline", tmp_path)
    assert (result.exit_code, result.stderr.startswith("wattprint: ")) == (2, True)


# — export —


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("table", sorted(TABLES))
def test_csv_and_parquet_have_the_same_rows(node: FakeNode, tmp_path: Path, table: str) -> None:
    written = node.run_json("export", table, "-o", tmp_path / "a.csv")
    node.run_json("export", table, "-o", tmp_path / "a.parquet")
    names, rows = read((tmp_path / "a.parquet").read_bytes())
    assert names == [column.name for column in TABLES[table].columns]
    as_text = [
        ["" if cell is None else str(cell).lower() if isinstance(cell, bool) else str(cell) for cell in row]
        for row in rows
    ]
    assert [list(row.values()) for row in read_csv(tmp_path / "a.csv")] == as_text
    assert written["rows"] == len(rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.parquet"]


def test_exports_add_up_to_what_the_ledger_has(books: QueryChain, node: FakeNode, tmp_path: Path) -> None:
    for table in ("readings", "lots", "movements", "claims"):
        node.run_json("export", table, "-o", tmp_path / f"{table}.csv")
    lots = read_csv(tmp_path / "lots.csv")
    assert sum(int(one["wh"]) for one in lots) == sum(lot.wh for lot in list_lots(books.state))
    assert {column for column in lots[0] if column.endswith("_wh")} == {f"{status.value}_wh" for status in SliceStatus}
    readings = read_csv(tmp_path / "readings.csv")
    minted = sum(int(one["minted_wh"]) for one in readings)
    assert minted == sum(int(one["wh"]) for one in lots)
    assert len(readings) == 4 + 2 + 4
    claims = read_csv(tmp_path / "claims.csv")
    moved = [one for one in read_csv(tmp_path / "movements.csv") if one["event"] == "energy.claimed"]
    assert sum(int(one["wh"]) for one in moved) == sum(int(one["wh"]) for one in claims) == 60 + 40 + 20


def test_an_export_can_be_narrowed_and_goes_to_standard_output(node: FakeNode) -> None:
    lines = node.run("export", "claims", "--participant", text(BOB), "-o", "-").stdout.splitlines()
    assert (lines[0].split(",")[0], len(lines)) == ("claim", 4)
    none = node.run("export", "claims", "--until", "2024-06-06T12:00:00Z", "-o", "-").stdout.splitlines()
    assert len(none) == 1


def test_an_export_that_fails_leaves_the_old_file(node: FakeNode, tmp_path: Path) -> None:
    path = tmp_path / "lots.csv"
    path.write_text("as it was")
    node.is_there = False
    assert node.run("export", "lots", "-o", path).exit_code == 3
    assert (path.read_text(), list(tmp_path.iterdir())) == ("as it was", [path])
    assert node.run("export", "lots", "-o", tmp_path / "lots.xls").exit_code == 2


def test_a_store_answers_as_a_node_does(books: QueryChain, node: FakeNode) -> None:
    offline = make_offline_ask(books.view)

    async def collect() -> list[list[Cell]]:
        return [row async for row in TABLES["movements"].iterate_rows(offline, Wanted())]

    rows = asyncio.run(collect())
    assert len(rows) == len(node.run("export", "movements", "-o", "-").stdout.splitlines()) - 1


# — statements —


async def test_a_statement_has_each_claim_by_source_and_sums_up(books: QueryChain) -> None:
    ask = make_offline_ask(books.view)
    made = await make_statement(ask, participant=text(BOB), from_ms=DAY_0_MS, until_ms=DAY_0_MS + DAY_MS)
    assert (made["claims"], made["claimed_wh"], made["hourly_wh"], made["volumetric_wh"]) == (3, 120, 60, 60)
    assert (made["by_technology"], made["by_zone"]) == ({"solar": 100, "wind": 20}, {"DE-LU": 100, "FR": 20})
    assert [(line["source"], line["matching"], line["wh"]) for line in made["lines"]] == [
        ("site of alice", "hourly", 60),
        ("site of alice", "volumetric", 40),
        ("site of carol", "volumetric", 20),
    ]
    after = await make_statement(ask, participant=text(BOB), from_ms=DAY_0_MS + 1, until_ms=DAY_0_MS + DAY_MS)
    assert (after["claims"], after["lines"]) == (0, [])


def test_a_statement_counts_what_still_stands_of_a_claim_and_what_makes_good_the_rest() -> None:
    market = make_market(world=QueryChain())
    first, second, third = market.buy(100, 60, 30)
    hurt = market.claim(SliceRef(first, 0, 100), SliceRef(second, 0, 60), hourly=False)
    market.withdraw(second)
    market.claim(SliceRef(third, 0, 25), hourly=False, replaces=hurt)
    chain = market.world
    assert isinstance(chain, QueryChain)
    node = make_node(chain)
    made = node.run_json(*STATEMENT_OF_JUNE)
    assert [(line["status"], line["wh"], line["lost_wh"]) for line in made["lines"]] == [
        ("replaced", 100, 60),
        ("claimed", 25, 0),
    ]
    assert (made["claims"], made["claimed_wh"], made["volumetric_wh"], made["lost_wh"]) == (2, 125, 125, 60)
    assert made["claimed_wh"] == trace_holder(chain.view, participant=text(BOB))["claimed_wh"]
    page = make_page(made)
    assert "0.000125 MWh in 2 claims" in page
    assert "−0.000060 replaced" in page
    assert "no longer counted, since corrected or void: 0.000060 MWh" in node.run(*STATEMENT_OF_JUNE).stdout
    exported = list(csv.DictReader(node.run("export", "claims", "-o", "-").stdout.splitlines()))
    assert sorted((one["wh"], one["lost_wh"], one["replaced_wh"]) for one in exported) == [
        ("160", "60", "25"),
        ("25", "0", "0"),
    ]


def test_a_statement_is_written_as_table_csv_json_and_page(node: FakeNode, tmp_path: Path) -> None:
    words = STATEMENT_OF_JUNE
    assert "bob: 0.000120 MWh in 3 claims (solar 0.000100, wind 0.000020)" in node.run(*words).stdout
    rows = list(csv.DictReader(node.run(*words, "--csv").stdout.splitlines()))
    assert sum(int(one["wh"]) for one in rows) == node.run_json(*words)["claimed_wh"]
    node.run(*words, "--html", tmp_path / "june.html")
    page = check_page(tmp_path / "june.html")
    assert "0.000120 MWh in 3 claims" in page
    assert format_mwh(1_234_567_890) == "1,234.567890"
    assert [format_count(count, "claim") for count in (0, 1, 2_000)] == ["0 claims", "1 claim", "2,000 claims"]


# — pictures —


class References(HTMLParser):
    """What a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "iframe", "link", "img", "object")
        self.found += [str(value) for name, value in attrs if name in ("src", "href", "xlink:href", "data")]


def check_page(path: Path) -> str:
    """A page that fetches nothing."""
    page = path.read_text()
    references = References()
    references.feed(page)
    assert references.found == []
    assert "url(" not in page
    assert "@import" not in page
    return page


def test_a_source_a_holder_and_a_lot_have_pictures(books: QueryChain, node: FakeNode, tmp_path: Path) -> None:
    lot = next(lot for lot in list_lots(books.state) if lot.wh == 100)
    pages = {}
    for name, what in (("source", lot.lot.meter.hex()), ("holder", text(BOB)), ("lot", format_lot_id(lot.lot))):
        node.run("trace", name, what, "--html", tmp_path / f"{name}.html")
        pages[name] = check_page(tmp_path / f"{name}.html")
    assert "The sums are complete" in pages["source"]
    assert "<title>bob: claimed 100 Wh</title>" in pages["source"]
    assert "<title>site of carol: held 10 Wh</title>" in pages["holder"]
    assert "Hour by hour" in pages["holder"]
    assert "bob: 0 to 60 Wh" in pages["lot"]


def test_the_story_of_a_lot_is_told_in_tables_of_names(books: QueryChain, node: FakeNode) -> None:
    lot = next(lot for lot in list_lots(books.state) if lot.wh == 100)
    told = node.run("trace", "lot", format_lot_id(lot.lot)).stdout
    bob = f"bob {text(BOB)[:8]}…{text(BOB)[-4:]}"
    assert "100 Wh, solar in DE-LU, 2024-06-06T00:00:00Z to 2024-06-06T00:15:00Z" in told
    assert re.search(rf"moved +0 +90 +90 +alice wp1\S+ +{bob}", told)
    assert re.search(rf"claimed +0 +60 +60 +{bob} +{bob}", told)
    assert re.search(rf"60 +90 +{bob} +active", told)
    assert max(map(len, told.splitlines())) < 200


def test_the_story_of_a_lot_names_what_is_behind_a_storage_and_why_it_was_withdrawn(node: FakeNode) -> None:
    range_ = {"first_wh": 0, "end_wh": 40, "holder": "wp1"}
    node.answers["trace_lot"] = {
        **dict.fromkeys(("meter", "site"), "aa"),
        "lot": "aa:0:1",
        "technology": "storage",
        "zone": "FR",
        "wh": 40,
        "start_ms": DAY_0_MS,
        "end_ms": DAY_0_MS + DAY_MS,
        "predecessor": "aa:0:0",
        "successor": None,
        "withdrawal": {"reason": "wired\x1bbackwards"},
        "mint": {"time_ms": DAY_0_MS, "tx_id": "cc", "slices": [range_]},
        "sources": [
            {
                "charge": "dd",
                "wh": 40,
                "charged_with": [
                    {"lot": "ee:0:1", "technology": "wind", "zone": "FR", "first_wh": 5, "end_wh": 60, "lost_wh": 1}
                ],
            }
        ],
        "movements": [{"event": "lot.withdrawn", "time_ms": DAY_0_MS, "tx_id": "ff", "wh": 40}],
        "slices": [{**range_, "status": "withdrawn"}],
        "next_cursor": None,
    }
    node.answers["participant_get"] = {"label": ""}
    told = node.run("trace", "lot", "aa:0:1").stdout
    assert re.search(r"ee:0:1 +wind +FR +54 +40 +dd", told)
    assert re.search(r"withdrawn +– +– +40 +– +– +ff", told)
    assert "predecessor: aa:0:0" in told
    assert "withdrawn: wired?backwards" in told


def test_a_picture_without_a_file_is_all_that_is_printed(books: QueryChain, node: FakeNode) -> None:
    meter = next(iter(list_lots(books.state))).lot.meter.hex()
    for words in (["source", meter], ["holder", text(BOB)]):
        printed = node.run("trace", *words, "--html").stdout
        assert printed.startswith("<!doctype html>")
        assert printed.rstrip().endswith(">")
    both = node.run("trace", "source", meter, "--html", "--json")
    assert (both.exit_code, both.stdout) == (2, "")


def test_what_a_stranger_wrote_on_the_ledger_is_no_markup(books: QueryChain, tmp_path: Path) -> None:
    node = make_node(books)
    answer = node.run_json("trace", "source", "--zone", "FR")
    answer["rows"][0]["label"] = "<script>alert(1)</script>"
    (tmp_path / "page.html").write_text(draw_source(answer, label="<b>&"))
    assert "&lt;script&gt;" in check_page(tmp_path / "page.html")


def test_many_holders_are_drawn_as_few(node: FakeNode) -> None:
    answer = node.run_json("trace", "source", "--zone", "FR")
    row = answer["rows"][0]
    answer["rows"] = [{**row, "label": f"holder {place}", "wh": 10, "held_wh": 10} for place in range(FLOWS_MAX + 5)]
    page = draw_source(answer, label="plant")
    assert ("6 others" in page, page.count('class="strong"')) == (True, FLOWS_MAX + 1)


def test_traces_of_a_zone_and_of_hours_are_tables(node: FakeNode) -> None:
    text_ = node.run("trace", "source", "--zone", "FR").stdout
    assert "metered 110 Wh = held 90 + claimed 20 Wh" in text_
    rows = list(
        csv.DictReader(node.run("trace", "source", "--zone", "FR", "--by", "hour", "--csv").stdout.splitlines())
    )
    assert [(one["minted_wh"], one["claimed_wh"]) for one in rows] == [("110", "20")]
    assert node.run("trace", "source").exit_code == 2
    assert json.loads(node.run("trace", "holder", text(BOB), "--zone", "FR", "--json").stdout)["wh"] == 30
