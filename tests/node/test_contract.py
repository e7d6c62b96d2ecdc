"""The contract with users, name by name: JSON-RPC's methods, parameters in order, and fields of results; the commands.

What stands here are the words of the interface's specification. A name may be added; one that is here stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import click
import pytest

from contracts_native.escrow import LockEscrow
from contracts_native.lots import SliceRef
from contracts_native.offers import OpenOffer
from contracts_native.table import load_table
from ledger.fields import Json
from ledger.primitives import format_address
from ledger.storage import MemoryStore
from node.cli.app import app, make_group
from node.jsonrpc import MESSAGES, Params
from node.queries.lot_ids import format_lot_id
from node.queries.view import JsonObject
from node.rpc_methods import METHODS
from tests.contracts_native import money
from tests.contracts_native.harness import ALICE, BOB, DAY_0_MS, DAY_MS, NOW_MS, UTILITY
from tests.contracts_native.papers import add_papers
from tests.node.fake_service import FakeService
from tests.node.query_answers import claim, move, rows
from tests.node.query_chain import QueryChain

# method → parameters, in the order in which they may be given by position; others follow.
PARAMETERS: Final[dict[str, str]] = {
    "chain_status": "",
    "chain_block": "height block_id",
    "chain_validators": "height",
    "chain_parameters": "height",
    "chain_audit": "",
    "tx_submit": "transaction wait timeout_ms",
    "tx_submit_many": "transactions wait timeout_ms",
    "tx_simulate": "transaction",
    "tx_get": "tx_id",
    "tx_pending": "tx_id",
    "participant_get": "participant",
    "site_get": "site",
    "meter_get": "meter",
    "reading_list": "meter channel from_ms until_ms",
    "energy_balance": "holder",
    "energy_slices": "holder site technology zone from_ms until_ms status",
    "lot_get": "lot",
    "claim_get": "claim",
    "credit_balance": "holder",
    "escrow_get": "escrow",
    "bill_get": "bill",
    "bill_dues": "consumer utility",
    "document_get": "document",
    "trace_source": "site meter from_ms until_ms",
    "trace_holder": "participant from_ms until_ms",
    "trace_lot": "lot",
    "proof_transaction": "tx_id",
    "proof_state": "key",
    "certificate_get": "claim",
    "subscribe": "topic filter",
    "unsubscribe": "subscription",
    "rpc.discover": "",
}
LISTS: Final = (
    *("participant_list", "site_list", "meter_list", "reading_list", "claim_list", "redemption_list", "escrow_list"),
    *("bill_list", "offer_list", "document_list", "governance_list", "energy_slices", "tx_pending"),
)
FIELDS: Final[dict[str, str]] = {
    "chain_status": "chain_id height block_id block_time_ms state_root syncing moniker peers validators"
    " mempool_transactions version",
    "chain_block": "header tx_ids certificate",
    "chain_validators": "validators",
    "chain_parameters": "parameters",
    "chain_audit": "sums holds",
    "chain_audit.sums": "name left right holds",
    "tx_get": "status height index transaction events",
    "tx_pending": "transactions",
    "reading_list.readings": "start_ms wh flag state lot",
    "energy_balance": "active_wh reserved_wh claimed_wh expired_wh withdrawn_wh",
    "energy_slices.slices": "lot first_wh end_wh wh holder status site technology zone",
    "lot_get": "lot meter wh slices",
    "claim_get": "claim slices beneficiary status",
    "credit_balance": "balance_cents",
    "escrow_get": "escrow status held_cents",
    "bill_get": "bill status lines outstanding_cents",
    "bill_dues": "dues_cents bills",
    "trace_source": "metered_wh rows holds",
    "trace_source.rows": "participant wh",
    "trace_holder": "sources wh",
    "trace_holder.sources": "meter site wh hours",
    "trace_lot": "mint movements slices",
    "trace_lot.movements": "tx_id",
    "proof_transaction": "proof header certificate",
    "proof_state": "proof header certificate value",
}
ERRORS: Final = {
    -32700: "Parse error",
    -32600: "Invalid Request",
    -32601: "Method not found",
    -32602: "Invalid params",
    -32603: "Internal error",
    -32000: "rejected",
    -32001: "not_found",
    -32002: "timed_out",
    -32003: "overloaded",
    -32004: "syncing",
    -32005: "too_large",
}

HEX_NAMES: Final = frozenset(
    {"block_id", "tx_id", "state_root", "parent_id", "public_key", "proposer"}
    | {"site", "meter", "claim", "bill", "escrow", "offer", "document"}
)
ADDRESS_NAMES: Final = frozenset(
    {"participant", "holder", "owner", "utility", "consumer", "beneficiary", "claimant", "sender"}
)

# command → options and arguments beside --json; "signs" stands for --key and --node, "asks" for --node.
COMMANDS: Final[dict[str, str]] = {
    "testnet start": "--validators --directory --base-port --detach --block-ms",
    "testnet stop": "--directory",
    "testnet status": "--directory",
    "testnet kill": "index --directory",
    "testnet restart": "index --directory",
    "node init": "--home",
    "node start": "--home",
    "node status": "asks",
    "node export-state": "file --home",
    "node import-state": "file --home",
    "node verify": "--home",
    "node rollback": "--home",
    "genesis new": "file",
    "genesis add-validator": "file key",
    "genesis show": "file",
    "key new": "file",
    "key show": "file",
    "key list": "directory",
    "key change-passphrase": "file",
    **{
        f"{group} {verb}": "asks"
        for group in ("participant", "site", "meter", "offer", "credit", "escrow", "bill", "document", "governance")
        for verb in ("show", "list")
    },
    "reading submit": "signs files --format",
    "reading list": "asks meter",
    "meter simulate": "signs",
    "energy transfer": "signs",
    "energy claim": "signs",
    "energy balance": "asks holder",
    "energy slices": "asks holder",
    "energy withdraw": "signs",
    "trace source": "asks source --csv --html",
    "trace holder": "asks participant --csv --html",
    "trace lot": "asks lot --csv --html",
    "certificate issue": "asks claim -o",
    "certificate verify": "file --genesis",
    "tx get": "asks tx_id",
    "tx wait": "asks tx_id",
    "tx decode": "transaction",
    "demo": "",
    "bench transfers": "",
    "bench readings": "",
    "bench sync": "",
}


@dataclass(frozen=True, slots=True)
class Story:
    """A chain with one of everything, and the questions about it: (method, parameters by name)."""

    store: MemoryStore
    questions: dict[str, dict[str, Json]]


def ask(store: MemoryStore, method: str, params: Params) -> JsonObject:
    """A question to a node that has this store, as JSON-RPC puts it."""
    service = FakeService()
    service.store = store
    return cast(JsonObject, METHODS[method].handle(service, **METHODS[method].bind(params)))


@pytest.fixture(scope="module")
def story() -> Story:
    world = QueryChain()
    solar, load = world.add_producer(ALICE), world.add_consumer(BOB)
    lots = world.produce(solar, 100, 200)
    world.consume(load, 80)
    move(world, lots[0], 0, 60, by=ALICE, to=BOB)
    claim_id = claim(world, lots[0], 0, 50, by=BOB, meter=load.meter_id).hex()
    money.pay_in(world, BOB, 500)
    locked = world.apply(LockEscrow(UTILITY.address, load.meter_id, 200), by=BOB)
    bill = money.issue_bill(world, load, 30).hex()
    world.apply(OpenOffer((SliceRef(lots[1], 0, 10),), NOW_MS + DAY_MS, 5_000), by=ALICE)
    add_papers(world, BOB)
    alice, bob, utility = (format_address(one.address) for one in (ALICE, BOB, UTILITY))
    meter, lot = solar.meter_id.hex(), format_lot_id(lots[0])
    site = ask(world.store, "meter_get", [meter])["site"]
    document = rows(ask(world.store, "document_list", {}), "documents")[0]["document"]
    period: dict[str, Json] = {"from_ms": DAY_0_MS, "until_ms": DAY_0_MS + DAY_MS}
    return Story(
        world.store,
        {
            "chain_status": {},
            "chain_block": {"height": 1},
            "chain_validators": {"height": 1},
            "chain_parameters": {"height": 1},
            "chain_audit": {},
            "tx_get": {"tx_id": locked.tx_id.hex()},
            "tx_pending": {},
            "participant_get": {"participant": alice},
            "site_get": {"site": site},
            "meter_get": {"meter": meter},
            "reading_list": {"meter": meter, "channel": "production", **period},
            "energy_balance": {"holder": bob},
            "energy_slices": {"holder": bob, "site": site, "technology": "solar"},
            "lot_get": {"lot": lot},
            "claim_get": {"claim": claim_id},
            "credit_balance": {"holder": bob},
            "escrow_get": {"escrow": locked.make_id("escrow").hex()},
            "bill_get": {"bill": bill},
            "bill_dues": {"consumer": bob, "utility": utility},
            "document_get": {"document": document},
            "trace_source": {"site": site, "meter": None, **period},
            "trace_holder": {"participant": bob, **period},
            "trace_lot": {"lot": lot},
            "proof_transaction": {"tx_id": locked.tx_id.hex()},
            "proof_state": {"key": "73"},
            **{name: {} for name in LISTS if name.endswith("_list") and name != "reading_list"},
        },
    )


@pytest.mark.parametrize("method", sorted(PARAMETERS))
def test_parameters_have_their_names_and_places(method: str) -> None:
    wanted = PARAMETERS[method].split()
    assert [one.name for one in METHODS[method].parameters][: len(wanted)] == wanted


@pytest.mark.parametrize("method", LISTS)
def test_every_list_takes_a_limit_and_a_cursor(method: str, story: Story) -> None:
    names = {one.name for one in METHODS[method].parameters}
    assert {"limit", "cursor"} <= names
    answer = ask(story.store, method, {**story.questions[method], "limit": 1})
    assert "next_cursor" in answer
    (items,) = (value for value in answer.values() if isinstance(value, list))
    assert len(items) <= 1


def test_every_question_is_answered_by_name_and_by_position_alike(story: Story) -> None:
    for method, params in story.questions.items():
        by_name = ask(story.store, method, params)
        wanted = PARAMETERS.get(method, "").split()
        assert list(params) == wanted[: len(params)], method
        assert ask(story.store, method, list(params.values())) == by_name, method


@pytest.mark.parametrize("place", sorted(FIELDS))
def test_results_have_their_fields(place: str, story: Story) -> None:
    method, _, part = place.partition(".")
    answer = ask(story.store, method, story.questions[method])
    objects = rows(answer, part) if part else [answer]
    assert objects, place
    for one in objects:
        assert set(FIELDS[place].split()) <= set(one), place


def test_sums_of_the_story_hold(story: Story) -> None:
    source = ask(story.store, "trace_source", story.questions["trace_source"])
    assert source["metered_wh"] == sum(cast(int, row["wh"]) for row in rows(source, "rows")) == 300
    assert all(row["holds"] is True for row in rows(ask(story.store, "chain_audit", {}), "sums"))
    dues = ask(story.store, "bill_dues", story.questions["bill_dues"])
    assert (dues["dues_cents"], len(rows(dues, "bills"))) == (30, 1)
    states = {
        row["state"] for row in rows(ask(story.store, "reading_list", story.questions["reading_list"]), "readings")
    }
    assert states == {"minted"}


def test_ids_are_hex_and_addresses_bech32m(story: Story) -> None:
    """Whatever is named like an id reads as one, in every answer."""
    for method, params in story.questions.items():
        for name, value in iterate_fields(ask(story.store, method, params)):
            if name in HEX_NAMES and isinstance(value, str):
                assert bytes.fromhex(value).hex() == value, (method, name)
            if name in ADDRESS_NAMES and isinstance(value, str):
                assert value.startswith("wp1"), (method, name)


def iterate_fields(value: Json) -> Iterator[tuple[str, Json]]:
    """Every field of every object in a document."""
    if isinstance(value, list):
        for one in value:
            yield from iterate_fields(one)
    elif isinstance(value, dict):
        for name, one in value.items():
            yield name, one
            yield from iterate_fields(one)


def test_the_page_about_json_rpc_has_every_method_and_error() -> None:
    page = (Path(__file__).parents[2] / "docs" / "json-rpc.md").read_text()
    assert set(re.findall("`([a-z._]+)`", page)) >= set(METHODS)
    for code, message in MESSAGES.items():
        assert f"| −{-code} | `{message}` |" in page


def test_errors_have_their_codes_and_names() -> None:
    assert ERRORS.items() <= MESSAGES.items()


@pytest.mark.parametrize("words", sorted(COMMANDS))
def test_commands_have_their_names_and_options(words: str) -> None:
    group, _, verb = words.partition(" ")
    found = make_group(group)
    assert found is not None, words
    command = found.get_command(click.Context(found), verb) if isinstance(found, click.Group) else found
    assert command is not None, words
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    shared = {"signs": {"--key", "--node"}, "asks": {"--node"}}
    for word in ("--json", *COMMANDS[words].split()):
        assert shared.get(word, {word}) <= options, (words, word)


def test_every_transaction_has_a_command_that_signs() -> None:
    for tag in load_table().payloads:
        family, _, verb = tag.partition(".")
        group = make_group(family)
        assert isinstance(group, click.Group)
        command = group.commands[verb.replace("_", "-")]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--json", "--key", "--node"} <= options, tag


def test_the_root_takes_what_every_command_takes() -> None:
    assert {"--json", "--node", "--key"} <= {option for one in app.params for option in one.opts}
