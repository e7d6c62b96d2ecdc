"""The table of methods against a chain in memory: parameters, outcomes, and which refusal gets which code."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import cast, get_type_hints

import pytest

from ledger.errors import Malformed, NotAdmitted, RuleViolated
from ledger.fields import Json
from ledger.primitives import Address, Hash, format_address
from ledger.transaction import TRANSACTION_BYTES_MAX, TransactionTable
from node.client import Client, SyncClient
from node.jsonrpc import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    NOT_FOUND,
    OVERLOADED,
    REJECTED,
    SYNCING,
    TIMED_OUT,
    Fault,
    Params,
)
from node.mempool import Overloaded
from node.methods import SYNCING_REASON, explain, explain_question, make_method
from node.queries.errors import NotFound
from node.rpc_methods import METHODS, SUBMIT_MANY_MAX
from tests.node.fake_service import ALICE, BOB, UTILITY, FakeService, make_issue, make_transfer, sign_fake

ISSUE = sign_fake(make_issue("p1"), UTILITY)
OVERSPENT = sign_fake(make_transfer(5), ALICE)


async def call(service: FakeService, name: str, params: Params) -> Json:
    method = METHODS[name]
    result = method.handle(service, **method.bind(params))
    return await cast("Awaitable[Json]", result) if method.is_waiting else cast(Json, result)


async def ask(service: FakeService, name: str, params: Params) -> dict[str, Json]:
    return cast("dict[str, Json]", await call(service, name, params))


def refuse(name: str, params: Params) -> tuple[int, str, str]:
    with pytest.raises(Fault) as caught:
        METHODS[name].bind(params)
    return read_fault(caught.value)


def read_fault(fault: Fault) -> tuple[int, str, str]:
    data = cast("dict[str, str]", fault.data)
    return fault.code, data["reason"], data["item"]


def test_parameters_bind_by_name_and_by_position_alike() -> None:
    method = METHODS["tx_submit"]
    by_name = method.bind({"transaction": "00ff", "timeout_ms": 5, "wait": "committed"})
    assert by_name == method.bind(["00ff", "committed", 5])
    assert by_name["transaction"] == b"\x00\xff"


def test_a_null_stands_for_an_optional_parameter_that_is_left_out() -> None:
    assert METHODS["tx_submit"].bind(["00", None, 5]) == {"transaction": b"\0", "timeout_ms": 5}
    assert refuse("tx_submit", [None])[1] == "field_has_wrong_type"


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({}, "parameter_missing"),
        ([], "parameter_missing"),
        ({"transaction": "00", "other": 1}, "parameter_unknown"),
        (["00", "admitted", 1, 2], "too_many_parameters"),
        ({"transaction": 1}, "field_has_wrong_type"),
        ({"transaction": {}}, "field_has_wrong_type"),
        ({"transaction": "0"}, "hex_invalid"),
        ({"transaction": "AA"}, "hex_invalid"),
        ({"transaction": ""}, "bytes_length_out_of_range"),
        ({"transaction": "00" * (TRANSACTION_BYTES_MAX + 1)}, "bytes_length_out_of_range"),
        ({"transaction": "00", "wait": "forever"}, "choice_unknown"),
        ({"transaction": "00", "timeout_ms": -1}, "number_out_of_range"),
        ({"transaction": "00", "timeout_ms": 10**12}, "number_out_of_range"),
        ({"transaction": "00", "timeout_ms": True}, "field_has_wrong_type"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(params: Params, reason: str) -> None:
    code, said, _ = refuse("tx_submit", params)
    assert (code, said) == (INVALID_PARAMS, reason)


def test_a_refused_parameter_is_named_in_the_item() -> None:
    assert refuse("tx_get", {"tx_id": "zz"})[2].startswith("tx_id: ")
    assert refuse("tx_get", {"nonsense": 1}) == (INVALID_PARAMS, "parameter_missing", "tx_id")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("value", [[], {}, True, -1, 2**70, "\x00", "x" * 2_000, "\ud800"])
def test_rubbish_in_any_parameter_of_any_method_is_at_most_a_wrong_parameter(name: str, value: Json) -> None:
    required: dict[str, Json] = {one.name: value for one in METHODS[name].parameters if one.is_required}
    for parameter in METHODS[name].parameters:
        try:
            METHODS[name].bind({**required, parameter.name: value})
        except Fault as fault:
            code = fault.code
        else:
            code = INVALID_PARAMS
        assert code == INVALID_PARAMS


async def test_a_submitted_transaction_is_pending_and_then_committed() -> None:
    service = FakeService(commits=False)
    submitted = await ask(service, "tx_submit", [ISSUE.raw.hex()])
    assert submitted == {"tx_id": ISSUE.tx_id, "status": "pending", "height": None, "index": None, "events": []}
    waiting = await ask(service, "tx_get", [ISSUE.tx_id])
    assert (waiting["status"], waiting["height"], waiting["index"], waiting["events"]) == ("pending", None, None, [])
    listed = await ask(service, "tx_pending", {})
    assert [one["tx_id"] for one in cast("list[dict[str, Json]]", listed["transactions"])] == [ISSUE.tx_id]
    assert await ask(service, "tx_pending", [ISSUE.tx_id]) == listed
    service.commit()
    committed = await ask(service, "tx_get", [ISSUE.tx_id])
    assert (committed["status"], committed["height"], committed["index"]) == ("committed", 1, 0)
    assert await ask(service, "tx_pending", [ISSUE.tx_id]) == {
        "transactions": [],
        "next_cursor": None,
        "mempool_transactions": 0,
    }


async def test_pending_transactions_come_in_pages_that_leave_none_out() -> None:
    service = FakeService(commits=False)
    sent = [sign_fake(make_issue(f"page {number}"), UTILITY) for number in range(3)]
    await ask(service, "tx_submit_many", [[one.raw.hex() for one in sent]])
    pages: list[list[Json]] = []
    cursor: Json = None
    for _ in range(4):
        page = await ask(service, "tx_pending", {"limit": 1, "cursor": cursor})
        pages.append([one["tx_id"] for one in cast("list[dict[str, Json]]", page["transactions"])])
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert pages == [[one.tx_id] for one in sent]


async def test_waiting_for_the_commit_brings_place_and_events() -> None:
    result = await ask(FakeService(), "tx_submit", {"transaction": ISSUE.raw.hex(), "wait": "committed"})
    assert (result["status"], result["height"], result["index"]) == ("committed", 1, 0)
    (event,) = cast("list[dict[str, Json]]", result["events"])
    assert event["event"] == "credit.issued"
    assert event["holder"] == format_address(ALICE.address)


async def test_a_commit_that_does_not_come_in_time_names_the_transaction() -> None:
    with pytest.raises(Fault) as caught:
        await ask(FakeService(commits=False), "tx_submit", [ISSUE.raw.hex(), "committed", 0])
    assert caught.value.code == TIMED_OUT
    assert read_fault(caught.value)[1:] == ("transaction_not_yet_committed", ISSUE.tx_id)
    assert cast("dict[str, Json]", caught.value.data)["tx_id"] == ISSUE.tx_id


async def test_a_refused_transaction_carries_reason_and_item() -> None:
    with pytest.raises(Fault) as caught:
        await ask(FakeService(), "tx_submit", [OVERSPENT.raw.hex()])
    assert read_fault(caught.value)[:2] == (REJECTED, "credits_not_sufficient")
    assert "0 cents" in read_fault(caught.value)[2]


async def test_bytes_that_are_no_transaction_are_refused_like_any_other() -> None:
    with pytest.raises(Fault) as caught:
        await ask(FakeService(), "tx_submit", ["c1"])
    assert read_fault(caught.value)[:2] == (REJECTED, "encoding_invalid")


async def test_a_refusal_among_many_does_not_touch_the_others() -> None:
    raws: list[Json] = [ISSUE.raw.hex(), OVERSPENT.raw.hex(), "zz", sign_fake(make_issue("p2"), UTILITY).raw.hex()]
    answer = await call(FakeService(), "tx_submit_many", {"transactions": raws, "wait": "committed"})
    results = cast("list[dict[str, Json]]", answer)
    assert [one["status"] for one in results] == ["committed", "refused", "refused", "committed"]
    errors = [cast("dict[str, dict[str, str]]", one["error"])["data"]["reason"] for one in results if "error" in one]
    assert errors == ["credits_not_sufficient", "hex_invalid"]
    assert results[2]["tx_id"] is None


async def test_of_many_that_time_out_each_says_so() -> None:
    raws: list[Json] = [ISSUE.raw.hex()]
    answer = await call(FakeService(commits=False), "tx_submit_many", [raws, "committed", 0])
    (result,) = cast("list[dict[str, Json]]", answer)
    assert (result["tx_id"], result["status"]) == (ISSUE.tx_id, "pending")
    assert cast("dict[str, Json]", result["error"])["code"] == TIMED_OUT


async def test_only_undecodable_texts_reach_no_service() -> None:
    service = FakeService()
    results = cast("list[Json]", await call(service, "tx_submit_many", [["zz", "z"]]))
    assert len(results) == 2
    assert service.submissions == 0


def test_many_has_a_limit_and_is_not_empty() -> None:
    assert refuse("tx_submit_many", [["00"] * (SUBMIT_MANY_MAX + 1)])[1] == "array_length_out_of_range"
    assert refuse("tx_submit_many", [[]])[1] == "array_length_out_of_range"
    assert refuse("tx_submit_many", [[1]])[1] == "field_has_wrong_type"


async def test_a_simulation_tells_events_or_refusal_and_keeps_nothing() -> None:
    service = FakeService(commits=False)
    answer = await ask(service, "tx_simulate", [ISSUE.raw.hex()])
    assert [one["event"] for one in cast("list[dict[str, Json]]", answer["events"])] == ["credit.issued"]
    with pytest.raises(Fault) as caught:
        await call(service, "tx_simulate", [OVERSPENT.raw.hex()])
    assert read_fault(caught.value)[:2] == (REJECTED, "credits_not_sufficient")
    assert (await ask(service, "tx_pending", {}))["mempool_transactions"] == 0


@pytest.mark.parametrize(("reason", "status"), [("transaction_expired", "expired"), ("role_missing", "dropped")])
async def test_a_dropped_transaction_says_why(reason: str, status: str) -> None:
    service = FakeService(commits=False)
    await call(service, "tx_submit", [ISSUE.raw.hex()])
    service.drop(Hash(bytes.fromhex(ISSUE.tx_id)), NotAdmitted(reason, "x"))
    answer = await ask(service, "tx_get", [ISSUE.tx_id])
    assert (answer["status"], answer["height"], answer["events"]) == (status, None, [])
    assert cast("dict[str, dict[str, str]]", answer["error"])["data"]["reason"] == reason


async def test_an_unknown_transaction_is_not_found() -> None:
    with pytest.raises(Fault) as caught:
        await call(FakeService(), "tx_get", ["00" * 32])
    assert read_fault(caught.value) == (NOT_FOUND, "transaction_not_found", "00" * 32)


async def test_the_status_tells_the_head_and_the_node() -> None:
    service = FakeService()
    service.commit()
    status = await ask(service, "chain_status", {})
    block = await ask(service, "chain_block", {"height": 1})
    assert (status["height"], status["block_id"]) == (1, block["block_id"])
    assert status["chain_id"] == "fake-1"
    assert status["syncing"] is False
    names = {"state_root", "block_time_ms", "moniker", "peers", "validators", "mempool_transactions", "version"}
    assert names <= status.keys()


async def test_a_question_is_answered_or_refused_with_its_own_code() -> None:
    service = FakeService()
    found = await ask(service, "participant_get", [format_address(BOB.address)])
    assert found["label"] == "Bob"
    for params, code in ((["wp1nonsense"], INVALID_PARAMS), ([format_address(Address(bytes(20)))], NOT_FOUND)):
        with pytest.raises(Fault) as caught:
            await call(service, "participant_get", cast(Params, params))
        assert caught.value.code == code


@pytest.mark.parametrize(("name", "params"), [("subscribe", ["blocks"]), ("unsubscribe", [1])])
async def test_subscriptions_are_for_websockets(name: str, params: list[Json]) -> None:
    with pytest.raises(Fault) as caught:
        await call(FakeService(), name, params)
    assert caught.value.code == METHOD_NOT_FOUND


def test_the_kind_of_a_refusal_decides_its_code() -> None:
    assert explain(RuleViolated("dues_outstanding", "7")).code == REJECTED
    assert explain(NotFound("site_not_found")).code == NOT_FOUND
    assert explain(Overloaded("mempool_full")).code == OVERLOADED
    assert explain(NotAdmitted(SYNCING_REASON)).code == SYNCING
    assert explain(Malformed("encoding_invalid")).code == REJECTED
    assert explain_question(Malformed("hex_invalid")).code == INVALID_PARAMS


def test_a_parameter_that_nobody_explained_is_a_mistake_of_ours() -> None:
    def odd(_table: TransactionTable, *, never_heard_of: int) -> Json:
        """A method."""
        return never_heard_of

    with pytest.raises(KeyError):
        make_method(odd, {})


@pytest.mark.parametrize("client", [Client, SyncClient])
def test_the_clients_have_every_method_with_the_same_parameters(client: type[Client | SyncClient]) -> None:
    for name, method in METHODS.items():
        function = getattr(client, name.replace(".", "_"))
        assert inspect.getdoc(function), name
        hints = get_type_hints(function)
        assert "return" in hints, name
        given = [one for one in inspect.signature(function).parameters if one != "self"]
        assert given == [one.name for one in method.parameters], name
        assert set(given) <= set(hints), name
