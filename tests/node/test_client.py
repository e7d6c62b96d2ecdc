"""What the client signs and reads, without a node."""

from __future__ import annotations

import orjson
import pytest

from contracts_native.credits import TransferCredits
from contracts_native.table import load_table
from ledger.transaction import check_signatures, decode_transaction
from node.client_errors import NodeUnreachable, NotYetCommitted, Refused, RpcError, UnknownItem, make_error
from node.client_forms import Submitted, encode_call, read_answer, read_outcomes, sign_payload
from tests.node.fake_service import ALICE, BOB, UTILITY, make_transfer

URL = "http://node"


def test_a_signed_payload_is_a_valid_envelope_of_all_signers() -> None:
    signed = sign_payload(
        make_transfer(7), chain_id="c", valid_until=9, salt=b"12345678", signer=ALICE, cosigners=(BOB, UTILITY)
    )
    tx = decode_transaction(signed.raw, load_table())
    check_signatures(tx)
    assert tx.tx_id.hex() == signed.tx_id
    assert tx.signers == (ALICE.address, BOB.address, UTILITY.address)
    assert (tx.chain_id, tx.valid_until, tx.salt) == ("c", 9, b"12345678")
    assert tx.payload == TransferCredits(BOB.address, 7, "")


def test_parameters_that_are_none_are_left_out() -> None:
    assert orjson.loads(encode_call("m", {"a": 1, "b": None, "c": False}, 3)) == {
        "jsonrpc": "2.0",
        "method": "m",
        "params": {"a": 1, "c": False},
        "id": 3,
    }


def test_an_answer_gives_its_result_even_when_it_is_null() -> None:
    assert read_answer(b'{"jsonrpc":"2.0","result":null,"id":1}', URL) is None


@pytest.mark.parametrize("raw", [b"", b"<html>", b"[]", b"1", b"{}", b'{"error":"no"}'])
def test_what_is_no_answer_comes_from_no_node(raw: bytes) -> None:
    with pytest.raises(NodeUnreachable, match="not a node"):
        read_answer(raw, URL)


def test_a_refusal_has_the_reason_and_the_item() -> None:
    raw = orjson.dumps(
        {
            "error": {
                "code": -32000,
                "message": "rejected",
                "data": {"reason": "role_missing", "item": "x", "tx_id": "ab"},
            }
        }
    )
    with pytest.raises(Refused, match="role_missing: x") as caught:
        read_answer(raw, URL)
    assert (caught.value.reason, caught.value.item, caught.value.tx_id) == ("role_missing", "x", "ab")


@pytest.mark.parametrize(
    ("code", "kind"), [(-32001, UnknownItem), (-32002, NotYetCommitted), (-32602, RpcError), (-32603, RpcError)]
)
def test_every_code_has_its_exception(code: int, kind: type[RpcError]) -> None:
    error = make_error({"code": code, "message": "m", "data": {"reason": "r", "item": ""}})
    assert type(error) is kind
    assert (error.code, error.reason, str(error)) == (code, "r", "r")


@pytest.mark.parametrize("error", [{}, {"code": "x"}, {"code": -32000}, {"code": None, "data": 7}])
def test_an_odd_error_is_still_an_error(error: dict[str, object]) -> None:
    assert isinstance(make_error(error), RpcError)


def test_the_outcomes_of_many_keep_their_order() -> None:
    good = {"tx_id": "ab", "status": "committed", "height": 3, "index": 0, "events": [{"event": "e"}]}
    bad = {
        "tx_id": None,
        "status": "refused",
        "error": {"code": -32000, "message": "rejected", "data": {"reason": "r"}},
    }
    first, second = read_outcomes([good, bad])
    assert first == Submitted("ab", "committed", 3, 0, ({"event": "e"},))
    assert isinstance(second, Refused)
    assert second.reason == "r"
