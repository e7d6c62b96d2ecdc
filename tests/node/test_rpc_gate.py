"""Who may ask a node for what: rates by address, tokens, origins."""

from __future__ import annotations

import hashlib
from ipaddress import IPv4Address

import pytest

from node.jsonrpc import BATCH_MAX, NOT_PERMITTED, Fault
from node.rpc_gate import Gate, GateSettings, is_loopback_host, is_same_origin

TOKEN = "correct horse"
HASHES = frozenset({hashlib.sha256(TOKEN.encode()).hexdigest()})
FAR, NEAR = "192.0.2.1", "127.0.0.1"


def count_answered(gate: Gate, address: str, requests: int, *, now_ms: int = 0) -> int:
    visitor = gate.identify(address, None)
    return sum(gate.is_within_rate(visitor, now_ms) for _ in range(requests))


def test_another_machine_has_a_rate_and_this_one_has_none() -> None:
    gate = Gate(GateSettings(requests_per_second=300))
    assert count_answered(gate, FAR, 2_000) == 1_500
    assert count_answered(gate, FAR, 2_000, now_ms=1_000) == 300
    assert count_answered(gate, "192.0.2.2", 10) == 10
    assert count_answered(gate, NEAR, 5_000) == count_answered(gate, "::1", 5_000) == 5_000


def test_the_operator_may_limit_this_machine_and_free_the_others() -> None:
    gate = Gate(GateSettings(requests_per_second=0, loopback_requests_per_second=1))
    assert count_answered(gate, FAR, 5_000) == 5_000
    assert count_answered(gate, NEAR, 5_000) == BATCH_MAX


def test_a_whole_batch_counts_and_one_of_the_largest_is_always_possible() -> None:
    gate = Gate(GateSettings(requests_per_second=1))
    visitor = gate.identify(FAR, None)
    assert gate.is_within_rate(visitor, 0, BATCH_MAX)
    assert not gate.is_within_rate(visitor, 0)
    assert not gate.is_within_rate(visitor, 999, 0)
    assert gate.is_within_rate(visitor, 1_000, 0)


def test_a_token_that_is_no_utf_8_is_a_wrong_one() -> None:
    """The server hands such bytes on as lone surrogates."""
    gate = Gate(GateSettings(token_hashes=HASHES))
    assert gate.identify(FAR, f"Bearer {TOKEN}").has_token
    assert not gate.identify(FAR, b"Bearer \xff".decode(errors="surrogateescape")).has_token


@pytest.mark.parametrize(
    ("one", "other"),
    [("2001:db8:1:2::5", "2001:db8:1:2:ffff::9"), ("::ffff:192.0.2.1", "192.0.2.1")],
)
def test_addresses_of_one_client_share_a_rate(one: str, other: str) -> None:
    gate = Gate(GateSettings())
    assert gate.identify(one, None).address == gate.identify(other, None).address
    assert gate.identify("2001:db8:1:3::5", None).address != gate.identify("2001:db8:1:2::5", None).address


@pytest.mark.parametrize(
    ("header", "is_known"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer {TOKEN}", True),
        (None, False),
        ("", False),
        ("Bearer", False),
        ("Bearer wrong", False),
        (f"Basic {TOKEN}", False),
        (f"Bearer {next(iter(HASHES))}", False),
    ],
)
def test_only_a_token_of_the_list_is_one(header: str | None, is_known: bool) -> None:
    assert Gate(GateSettings(token_hashes=HASHES)).identify(FAR, header).has_token == is_known


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        (GateSettings(), set()),
        (GateSettings(reads_need_token=True), set()),
        (GateSettings(token_hashes=HASHES), {"tx_submit", "tx_submit_many"}),
        (GateSettings(token_hashes=HASHES, reads_need_token=True), {"tx_submit", "tx_submit_many", "chain_status"}),
    ],
)
def test_tokens_are_needed_for_submissions_and_perhaps_for_reading(settings: GateSettings, refused: set[str]) -> None:
    gate = Gate(settings)
    for method in ("tx_submit", "tx_submit_many", "chain_status"):
        gate.check_method(gate.identify(FAR, f"Bearer {TOKEN}"), method) if settings.token_hashes else None
        if method in refused:
            with pytest.raises(Fault) as fault:
                gate.check_method(gate.identify(FAR, None), method)
            assert fault.value.code == NOT_PERMITTED
            assert "token_required" in str(fault.value.data)
        else:
            gate.check_method(gate.identify(FAR, None), method)


@pytest.mark.parametrize(
    ("origin", "host", "is_same"),
    [
        (None, None, True),
        ("http://127.0.0.1:8600", "127.0.0.1:8600", True),
        ("http://[::1]:8600", "[::1]:8600", True),
        ("http://localhost:8600", "localhost:8600", True),
        ("http://127.0.0.1:3000", "127.0.0.1:8600", False),
        ("http://evil.example:8600", "evil.example:8600", False),  # a name that was pointed at this machine
        ("http://evil.example", "127.0.0.1:8600", False),
        ("null", "127.0.0.1:8600", False),
        ("", "", False),
        ("http://[", "[", False),
        ("http://127.0.0.1:8600", None, False),
    ],
)
def test_a_page_of_this_node_is_one_of_its_address(origin: str | None, host: str | None, is_same: bool) -> None:
    assert is_same_origin(origin, host) is is_same


def test_pages_elsewhere_read_only_if_they_are_named() -> None:
    named, other = "https://grid.example", "https://evil.example"
    gate = Gate(GateSettings(origins=frozenset({named})))
    assert gate.is_origin_allowed(named, "127.0.0.1:8600")
    assert not gate.is_origin_allowed(other, "127.0.0.1:8600")
    assert gate.make_origin_headers(named)["Access-Control-Allow-Origin"] == named
    assert gate.make_origin_headers(other) == gate.make_origin_headers(None) == gate.make_preflight_headers(other) == {}
    assert "Authorization" in gate.make_preflight_headers(named)["Access-Control-Allow-Headers"]


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        (str(IPv4Address(0)), False),
        ("a.example", False),
    ],
)
def test_what_only_this_machine_reaches(host: str, is_loopback: bool) -> None:
    assert is_loopback_host(host) is is_loopback
