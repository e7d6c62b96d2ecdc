"""JSON-RPC 2.0 as its specification has it, and whatever else may be in a body."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.fields import Json
from node.jsonrpc import (
    BATCH_MAX,
    COLONS_MAX,
    DEPTH_MAX,
    ID_LENGTH_MAX,
    INVALID_REQUEST,
    MESSAGES,
    PARSE_ERROR,
    REJECTED,
    STRUCTURES_MAX,
    TOO_LARGE,
    Fault,
    InvalidRequest,
    Request,
    encode_batch,
    encode_error,
    encode_notification,
    encode_result,
    make_fault,
    parse,
    read_request,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
ALMOST_REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.sampled_from(["2.0", "1.0", 2]) | JSON,
        "method": st.sampled_from(["tx_get", ""]) | JSON,
        "params": JSON,
        "id": JSON,
    },
)


def code_of(raw: bytes) -> int:
    with pytest.raises(Fault) as caught:
        parse(raw)
    return caught.value.code


def test_a_request_by_name_and_by_position() -> None:
    by_name = parse(b'{"jsonrpc":"2.0","method":"subtract","params":{"a":1},"id":"x"}')
    assert by_name == Request("subtract", {"a": 1}, "x")
    assert parse(b'{"jsonrpc":"2.0","method":"subtract","params":[42,23],"id":1}') == Request("subtract", [42, 23], 1)
    assert parse(b'{"jsonrpc":"2.0","method":"m","id":1}') == Request("m", {}, 1)


def test_without_an_id_it_is_a_notification_and_with_null_it_is_not() -> None:
    assert parse(b'{"jsonrpc":"2.0","method":"m"}') == Request("m", {}, None, is_notification=True)
    assert parse(b'{"jsonrpc":"2.0","method":"m","id":null}') == Request("m", {}, None)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b'{"a":NaN}', b'{"a":Infinity}', b"1e999", b'"\\ud800"', b"{}x"])
def test_what_is_no_json_is_a_parse_error(raw: bytes) -> None:
    assert code_of(raw) == PARSE_ERROR


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_nesting_is_refused_and_wide_nesting_is_not(opening: bytes) -> None:
    closing = {b"[": b"]", b'{"a":': b"}"}[opening]
    deep = opening * (DEPTH_MAX + 1) + b"1" + closing * (DEPTH_MAX + 1)
    assert code_of(deep) == PARSE_ERROR
    assert code_of(opening * 15_000 + b"1" + closing * 15_000) == PARSE_ERROR
    wide = b'{"jsonrpc":"2.0","method":"m","params":[' + b",".join([b"[{}]"] * 100) + b'],"id":1}'
    assert isinstance(parse(wide), Request)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"jsonrpc":"2.0","method":"a","method":"b","id":1}',
        b'{"jsonrpc":"2.0","method":"a","params":{"height":1,"height" : 2},"id":1}',
        b'[{"jsonrpc":"2.0","method":"a","id":1,"id":2}]',
        b'{"jsonrpc":"2.0","method":"a","m\\u0065thod":"b","id":":"}',
    ],
)
def test_a_name_that_stands_twice_is_refused(raw: bytes) -> None:
    with pytest.raises(Fault) as caught:
        parse(raw)
    assert caught.value.code == PARSE_ERROR
    assert isinstance(caught.value.data, dict)
    assert caught.value.data["reason"] == "json_name_repeated"


def test_colons_in_texts_are_no_names() -> None:
    raw = b'{"jsonrpc":"2.0","method":"lot_get","params":{"lot":"a:1:1", "b" :"\\":"},"id":1}'
    assert parse(raw) == Request("lot_get", {"lot": "a:1:1", "b": '":'}, 1)


def test_a_body_of_very_many_structures_is_too_large() -> None:
    assert code_of(b"[" + b"[]," * STRUCTURES_MAX + b"[]]") == TOO_LARGE
    assert code_of(b"{" + b'"k":1,' * COLONS_MAX + b'"k":1}') == TOO_LARGE
    assert code_of(b'"' + b":" * (COLONS_MAX + 1) + b'"') == TOO_LARGE


def test_a_batch_keeps_its_order_and_its_invalid_items() -> None:
    items = parse(b'[1,{"jsonrpc":"2.0","method":"a","id":1},{"foo":"boo"},{"jsonrpc":"2.0","method":"b","id":1}]')
    assert isinstance(items, list)
    first, second, third, fourth = items
    assert isinstance(first, InvalidRequest)
    assert first.fault.code == INVALID_REQUEST
    assert second == Request("a", {}, 1)
    assert isinstance(third, InvalidRequest)
    assert fourth == Request("b", {}, 1)  # a repeated id is the caller's affair


def test_an_empty_batch_is_invalid_and_a_long_one_too_large() -> None:
    assert code_of(b"[]") == INVALID_REQUEST
    assert code_of(b"[" + b",".join([b"1"] * (BATCH_MAX + 1)) + b"]") == TOO_LARGE
    assert isinstance(parse(b"[" + b",".join([b"1"] * BATCH_MAX) + b"]"), list)


@pytest.mark.parametrize(
    ("document", "answered_id"),
    [
        (1, None),
        ("text", None),
        (None, None),
        ({"jsonrpc": "2.0", "method": 1, "params": "bar"}, None),
        ({"jsonrpc": "2.0", "method": "m", "params": "bar", "id": 5}, 5),
        ({"jsonrpc": "2.0", "method": "m", "params": None, "id": 5}, 5),
        ({"jsonrpc": "1.0", "method": "m", "id": "x"}, "x"),
        ({"method": "m", "id": "x"}, "x"),
        ({"jsonrpc": "2.0", "id": 7}, 7),
        ({"jsonrpc": "2.0", "method": "m" * 101, "id": 7}, 7),
        ({"jsonrpc": "2.0", "method": "m", "id": []}, None),
        ({"jsonrpc": "2.0", "method": "m", "id": {}}, None),
        ({"jsonrpc": "2.0", "method": "m", "id": True}, None),
        ({"jsonrpc": "2.0", "method": "m", "id": 2**53 + 1}, None),
        ({"jsonrpc": "2.0", "method": "m", "id": "x" * (ID_LENGTH_MAX + 1)}, None),
    ],
)
def test_what_is_no_request_is_invalid_under_the_id_that_it_has(document: Json, answered_id: Json) -> None:
    item = read_request(document)
    assert isinstance(item, InvalidRequest)
    assert item.fault.code == INVALID_REQUEST
    assert item.id == answered_id


def test_a_number_too_large_for_64_bits_is_no_integer_any_more() -> None:
    item = parse(b'{"jsonrpc":"2.0","method":"m","params":[18446744073709551616],"id":1}')
    assert isinstance(item, Request)
    assert isinstance(item.params, list)
    assert type(item.params[0]) is float  # a codec of integers refuses it
    invalid = parse(b'{"jsonrpc":"2.0","method":"m","id":18446744073709551616}')
    assert isinstance(invalid, InvalidRequest)


def test_answers_have_the_form_of_the_specification() -> None:
    assert orjson.loads(encode_result(1, {"a": [True, None]})) == {
        "jsonrpc": "2.0",
        "result": {"a": [True, None]},
        "id": 1,
    }
    assert orjson.loads(encode_error(None, make_fault(REJECTED, "lot_already_claimed", "x"))) == {
        "jsonrpc": "2.0",
        "error": {"code": REJECTED, "message": "rejected", "data": {"reason": "lot_already_claimed", "item": "x"}},
        "id": None,
    }
    assert orjson.loads(encode_notification("n", [1])) == {"jsonrpc": "2.0", "method": "n", "params": [1]}
    assert orjson.loads(encode_batch([encode_result(1, 1), encode_result(2, 2)]))[1]["id"] == 2


def test_a_sum_past_64_bits_is_still_written() -> None:
    assert encode_result(1, 2**70).startswith(b'{"jsonrpc":"2.0","result":1180591620717411303424')


def test_every_code_has_its_message_and_no_two_share_one() -> None:
    assert len(set(MESSAGES.values())) == len(MESSAGES) == 12


@given(st.binary(max_size=64))
def test_bytes_are_parsed_or_refused(raw: bytes) -> None:
    try:
        parse(raw)
    except Fault as fault:
        encode_error(None, fault)


@given(ALMOST_REQUESTS | JSON | st.lists(ALMOST_REQUESTS, max_size=4))
def test_any_json_is_parsed_or_refused_and_can_be_answered(document: Json) -> None:
    try:
        raw = orjson.dumps(document)
    except TypeError:  # past 64 bits
        return
    try:
        parsed = parse(raw)
    except Fault as fault:
        encode_error(None, fault)
        return
    for item in parsed if isinstance(parsed, list) else [parsed]:
        answered = orjson.loads(encode_result(item.id, None))
        assert answered["id"] == item.id
        if isinstance(item, Request):
            assert isinstance(item.method, str)
            assert isinstance(item.params, list | dict)
