"""Every declared type goes there and back; and nothing that a stranger sends raises anything but a named refusal.

The types come from the tables: whoever declares another transaction, event or record gets these tests with it.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import pkgutil
import re
from functools import cache
from typing import Any, Final, cast

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import contracts_native
import ledger
from contracts_native.bills import BILLS, BillLine
from contracts_native.claims import CLAIMS
from contracts_native.lots import LotId, SliceRef
from contracts_native.meters import METERS
from contracts_native.offers import OFFERS
from contracts_native.sites import SITES
from contracts_native.table import load_table
from ledger.encoding import Plain, decode, encode
from ledger.errors import Malformed, NotAdmitted, Rejected
from ledger.execution import execute_transaction
from ledger.fields import Json, get_codec
from ledger.primitives import Address
from ledger.state import State
from ledger.storage import MemoryStore
from ledger.tables import Table
from ledger.transaction import (
    BlockContext,
    Payload,
    check_signatures,
    decode_transaction,
    make_body,
    make_envelope,
    sign_transaction,
)
from node.jsonrpc import INTERNAL_ERROR, INVALID_PARAMS, PARSE_ERROR, REJECTED
from node.metrics import NodeMetrics
from node.rpc_dispatch import Dispatcher
from node.rpc_gate import DEFAULT_GATE, Gate, Visitor
from node.rpc_methods import METHODS
from p2p.messages import Transactions, decode_frame, encode_frame
from tests.contracts_native.harness import (
    ALICE,
    AUDITOR,
    BOB,
    CAROL,
    CHAIN_ID,
    DAY_0_MS,
    DAY_MS,
    FULFILMENT,
    MEASURER,
    QUARTER_MS,
    UTILITY,
    Person,
    check_energy_conserved,
    list_lots,
)
from tests.contracts_native.money import check_credits_conserved, issue_bill
from tests.contracts_native.town import Town
from tests.node.fake_service import ALICE as FAKE_ALICE
from tests.node.fake_service import FakeService, sign_fake
from tests.properties.strategies import ANY_PLAIN, Pool, spoil_json, spoil_plain, values_of

ROUND_TRIPS: Final = 12  # of each type; together about 10 s
TRIES: Final = 15  # of each type at each boundary
EXECUTIONS: Final = 25
REASON: Final = re.compile(r"[a-z0-9]+(_[a-z0-9]+)+")
TABLE: Final = load_table()
TAGS: Final = sorted(TABLE.payloads)
SIGNERS: Final = (UTILITY, ALICE, BOB, CAROL, AUDITOR, MEASURER, FULFILMENT)
TOWN_STEPS: Final = 60
VISITOR: Final = Visitor("127.0.0.1", has_token=False)


def check_named(error: Rejected) -> None:
    assert REASON.fullmatch(error.reason), error


def list_tables() -> list[Table[object]]:
    """Every table of the ledger and of the contracts."""
    found: dict[int, Table[object]] = {}
    for package in (ledger, contracts_native):
        for info in pkgutil.iter_modules(package.__path__):
            module = importlib.import_module(f"{package.__name__}.{info.name}")
            tables = [one for one in vars(module).values() if isinstance(one, Table)]
            found.update((id(one), cast("Table[object]", one)) for one in tables)
    return list(found.values())


KINDS: Final = {
    **{f"payload {tag}": kind for tag, kind in TABLE.payloads.items()},
    **{f"event {name}": kind for name, kind in TABLE.events.items()},
    **{f"record {one.prefix.decode()}": one.kind for one in list_tables()},
}


@pytest.mark.parametrize("name", sorted(KINDS))
@settings(max_examples=ROUND_TRIPS)
@given(data=st.data())
def test_every_type_comes_back_from_its_bytes_and_from_its_json(name: str, data: st.DataObject) -> None:
    codec = get_codec(KINDS[name])
    value = data.draw(values_of(KINDS[name]))
    raw = encode(codec.to_plain(value))
    assert codec.from_plain(decode(raw)) == value
    assert encode(codec.to_plain(codec.from_plain(decode(raw)))) == raw, "one value, one form"
    assert codec.from_json(json.loads(json.dumps(codec.to_json(value)))) == value


@pytest.mark.parametrize("tag", TAGS)
@settings(max_examples=TRIES)
@given(data=st.data())
def test_json_of_a_command_is_a_payload_or_is_refused_by_name(tag: str, data: st.DataObject) -> None:
    codec = TABLE.codecs[tag]
    document = spoil_json(data.draw, codec.to_json(data.draw(values_of(TABLE.payloads[tag]))))
    try:
        payload = codec.from_json(document)
    except Malformed as error:
        check_named(error)
    else:
        assert codec.from_plain(decode(encode(codec.to_plain(payload)))) == payload


@cache
def make_dispatcher() -> Dispatcher:
    service = FakeService(commits=False)
    return Dispatcher(service, NodeMetrics(service, METHODS), Gate(DEFAULT_GATE))


def ask(body: bytes) -> bytes | None:
    """What the node answers to a body from its own machine."""
    return asyncio.run(make_dispatcher().answer(body, VISITOR))


def call(method: str, params: Json) -> dict[str, Any]:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    answer = ask(body)
    assert answer is not None
    return cast("dict[str, Any]", orjson.loads(answer))


@pytest.mark.parametrize("tag", TAGS)
@settings(max_examples=TRIES)
@given(data=st.data())
def test_json_rpc_answers_any_payload_with_its_events_or_a_named_refusal(tag: str, data: st.DataObject) -> None:
    payload = data.draw(values_of(TABLE.payloads[tag], {Address: (FAKE_ALICE.address,)}))
    raw = sign_fake(payload, FAKE_ALICE).raw
    if data.draw(st.booleans()):
        raw = spoil_bytes(data, raw)
    params: Json = {"transaction": raw.hex()} if data.draw(st.booleans()) else [raw.hex()]
    answer = call("tx_simulate", params)
    error = answer.get("error")
    if error is not None:
        assert error["code"] in (REJECTED, INVALID_PARAMS), error
        assert REASON.fullmatch(error["data"]["reason"]), error


@settings(max_examples=150)
@given(data=st.data())
def test_no_body_makes_the_node_stumble(data: st.DataObject) -> None:
    method = data.draw(st.sampled_from(("tx_submit", "tx_submit_many", "tx_simulate", "tx_get", "tx_pending")))
    request: Json = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"transaction": "00", "timeout_ms": 0}}
    body = data.draw(st.binary(max_size=60) | st.just(json.dumps(spoil_json(data.draw, request)).encode()))
    answer = ask(body)
    if answer is not None:
        parsed = orjson.loads(answer)
        said = parsed if isinstance(parsed, list) else [parsed]
        codes = [one["error"]["code"] for one in said if "error" in one]
        assert INTERNAL_ERROR not in codes, (body, answer)
        assert all(code <= REJECTED for code in codes) or PARSE_ERROR in codes


def spoil_bytes(data: st.DataObject, raw: bytes) -> bytes:
    """Bytes with one changed, cut off, put in; or something else altogether."""
    place = data.draw(st.integers(0, len(raw) - 1))
    one = data.draw(st.binary(min_size=1, max_size=2))
    changed = (raw[:place] + one + raw[place + 1 :], raw[:place], raw[:place] + one + raw[place:], one * 9)
    return data.draw(st.sampled_from(changed))


def check_wire(raw: bytes) -> None:
    """What a peer sends as a transaction is one, or is refused as such."""
    (item,) = cast(Transactions, decode_frame(encode_frame(Transactions((raw,))))).items
    try:
        tx = decode_transaction(item, TABLE)
        check_signatures(tx)
    except (Malformed, NotAdmitted) as error:
        check_named(error)
    else:
        assert tx.raw == raw


@pytest.mark.parametrize("tag", TAGS)
@settings(max_examples=TRIES)
@given(data=st.data())
def test_the_wire_refuses_what_is_no_payload_of_its_type(tag: str, data: st.DataObject) -> None:
    payload = cast(Payload, data.draw(values_of(TABLE.payloads[tag])))
    body = make_body(chain_id=CHAIN_ID, payload=payload, sender=ALICE.address, valid_until=9, salt=bytes(8))
    check_wire(spoil_bytes(data, sign_transaction(body, [(ALICE.public_key, ALICE.sign)])))
    parts = cast("tuple[Plain, ...]", decode(body))
    spoiled = encode((*parts[:-1], spoil_plain(data.draw, parts[-1])))
    check_wire(sign_transaction(spoiled, [(ALICE.public_key, ALICE.sign)]))


@settings(max_examples=200)
@given(raw=st.binary(max_size=80), plain=ANY_PLAIN)
def test_the_wire_refuses_bytes_that_mean_nothing(raw: bytes, plain: Plain) -> None:
    check_wire(raw)
    check_wire(encode(plain))
    check_wire(make_envelope(encode(plain), [(ALICE.public_key, ALICE.sign(raw))]))
    for frame in (raw, encode(plain), bytes((4,)) + encode(plain)):
        try:
            decode_frame(frame)
        except Rejected as error:
            check_named(error)


@cache
def make_town() -> tuple[dict[bytes, bytes], Pool, int]:
    """The store of a town where much has happened, what may be named there, and the time."""
    town = Town(7)
    town.run(TOWN_STEPS, check=lambda: None)
    bill = issue_bill(town.world, town.house, 20)
    state = town.world.state
    lots = [lot.lot for lot in list_lots(state)]
    refs = [
        SliceRef(lot.lot, first, end) for lot in list_lots(state) for first, end in ((0, 1), (0, lot.wh), (1, lot.wh))
    ]
    ids = [key[3:] for table in (SITES, METERS, OFFERS, CLAIMS, BILLS) for key, _ in table.scan(state)]
    lines = [BillLine(town.house.meter_id, DAY_0_MS, DAY_0_MS + QUARTER_MS, 5, 10**6)]
    times_ms = (0, 1, 900, DAY_0_MS, DAY_0_MS + QUARTER_MS, town.world.time_ms, town.world.time_ms + DAY_MS)
    pool: Pool = {
        Address: tuple(one.address for one in SIGNERS),
        bytes: (*ids, bill),
        int: times_ms,
        LotId: tuple(lots),
        SliceRef: tuple(refs),
        BillLine: tuple(lines),
        str: ("1", "DE-LU", "x"),
    }
    return dict(town.world.store.scan(b"", b"\xff")), pool, town.world.time_ms


@pytest.mark.parametrize("tag", TAGS)
@settings(max_examples=EXECUTIONS)
@given(data=st.data())
def test_any_payload_applies_or_is_refused_and_nothing_is_lost(tag: str, data: st.DataObject) -> None:
    items, pool, time_ms = make_town()
    state = State(MemoryStore(items.items()))
    payload = cast(Payload, data.draw(values_of(TABLE.payloads[tag], pool)))
    fit = [one for one in SIGNERS if not payload.declaration.roles or may_sign(one, payload)] or list(SIGNERS)
    by = data.draw(st.sampled_from(fit))
    cosigners = [one for one in (ALICE, CAROL) if one != by]
    body = make_body(
        chain_id=CHAIN_ID,
        payload=payload,
        sender=by.address,
        valid_until=9,
        salt=bytes(8),
        cosigners=[one.address for one in cosigners],
    )
    tx = decode_transaction(sign_transaction(body, [(one.public_key, one.sign) for one in (by, *cosigners)]), TABLE)
    try:
        execute_transaction(state, tx, TABLE, BlockContext(CHAIN_ID, 5, time_ms, 1), index=0)
    except Rejected as error:
        check_named(error)
        assert state.compute_changes() == {}, "a refusal leaves nothing behind"
        return
    changed = MemoryStore(items.items())
    changed.write(state.compute_changes())
    check_energy_conserved(State(changed))
    check_credits_conserved(State(changed))


def may_sign(person: Person, payload: Payload) -> bool:
    roles = {UTILITY: "utility", AUDITOR: "auditor", MEASURER: "measurement_body", FULFILMENT: "fulfilment"}
    return roles.get(person) in payload.declaration.roles
