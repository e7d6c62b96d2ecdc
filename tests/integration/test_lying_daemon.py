"""A daemon that is down, slow, silent, lying, truncating, redirecting or endless: a named error within the deadline.

Silence is waited for as long as the test's deadline says; a slow drip runs on a clock of its own. No test sleeps.
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ledger.errors import Malformed, RuleViolated
from node.documents.cid import BLOCK_BYTES_MAX, DAG_PB, RAW, Block, Cid, compute_cid, format_cid
from node.documents.daemon import ANSWER_BYTES_MAX, CallLimits, DaemonStore
from node.documents.store import StoreFailed
from node.documents.unixfs import Link, encode_file, encode_node
from tests.integration.lying_daemon import Answer, Request, reply, run_daemon, send, send_for_ever, stay_silent
from tests.node.documents.samples import make_blocks, make_content

SHORT = CallLimits(call_ms=1_500, lookup_ms=100, transfer_ms=2_000, collect_ms=1_500)
CONTENT = make_content(300_000)
BLOCKS = make_blocks(CONTENT)
ROOT = BLOCKS[-1].cid
HELLO = compute_cid(RAW, b"hello world")
JSON_ERROR = json.dumps({"Message": "it is \x1b[31mbroken", "Code": 0, "Type": "error"}).encode()


def serve_blocks(blocks: dict[str, bytes]) -> Answer:
    """Gives the blocks that it has, and the error of a daemon for others."""

    def answer(request: Request) -> None:
        if request.argument in blocks:
            reply(blocks[request.argument])(request)
        else:
            reply(JSON_ERROR, status="500 Internal Server Error")(request)

    return answer


def take_turns(answers: list[Answer]) -> Answer:
    """One answer after the other."""
    turns = iter(answers)

    def answer(request: Request) -> None:
        next(turns)(request)

    return answer


def name_blocks(blocks: list[Block]) -> dict[str, bytes]:
    return {format_cid(block.cid): block.data for block in blocks}


def pinning(*cids: Cid) -> Answer:
    return reply(json.dumps({"Keys": {format_cid(cid): {"Type": "recursive"} for cid in cids}}).encode())


def make_honest() -> dict[str, Answer]:
    """What a daemon answers that has stored and pinned the document."""
    return {
        "dag/import": reply(json.dumps({"Root": {"Cid": {"/": format_cid(ROOT)}, "PinErrorMsg": ""}}).encode()),
        "block/get": serve_blocks(name_blocks(BLOCKS)),
        "pin/ls": pinning(ROOT),
    }


def open_store(address: str, spool: Path, **options: Callable[[], int]) -> DaemonStore:
    return DaemonStore(address, spool_directory=spool, limits=SHORT, **options)


def fail(answers: dict[str, Answer], spool: Path, call: Callable[[DaemonStore], object]) -> StoreFailed:
    """The error that a call ends with, against a daemon that answers so; the store is well afterwards."""
    with run_daemon(answers) as daemon:
        store = open_store(daemon.address, spool)
        with pytest.raises(StoreFailed) as caught:
            call(store)
        daemon.answers.update(make_honest())
        assert b"".join(store.open(ROOT)) == CONTENT
        store.close()
    assert list(spool.iterdir()) == []
    return caught.value


def read(store: DaemonStore) -> bytes:
    return b"".join(store.open(HELLO))


def put(store: DaemonStore) -> Cid:
    return store.put(io.BytesIO(CONTENT), size_max=len(CONTENT))


CALLS: dict[str, Callable[[DaemonStore], object]] = {
    "block/get": read,
    "dag/import": put,
    "pin/ls": lambda store: store.list_pins(),
    "repo/gc": lambda store: store.collect_garbage(),
    "version": lambda store: store.health(),
}
HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
DEEP = b'{"Keys":' + b"[" * 100_000

# What a broken daemon does whatever it is asked, and what that is called.
BROKEN: list[tuple[str, Answer, str]] = [
    ("silent", stay_silent, "store_timed_out"),
    ("hangs up", send(b""), "store_unreachable"),
    ("half a status", send(b"HTTP/1."), "store_answer_malformed"),
    ("no HTTP", send(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "store_answer_malformed"),
    ("error", reply(JSON_ERROR, status="500 Internal Server Error"), "store_refused"),
    ("error of a proxy", reply(b"<h1>Bad Gateway</h1>", status="502 Bad Gateway"), "store_refused"),
    ("redirect", reply(b"", status="302 Found", headers="Location: http://127.0.0.1:1/\r\n"), "store_redirected"),
    ("permanent", reply(b"", status="308 Permanent", headers="Location: /api/v0/id\r\n"), "store_redirected"),
    ("packed", reply(gzip.compress(bytes(100)), headers="Content-Encoding: gzip\r\n"), "store_answer_malformed"),
    ("truncated", reply(b'{"Keys"', length=100), "store_answer_malformed"),
    ("bad chunks", send(CHUNKED + b"zz\r\nabc\r\n"), "store_answer_malformed"),
    ("cut chunks", send(CHUNKED + b"ff\r\n{}"), "store_answer_malformed"),
    ("endless head", send_for_ever(HEAD, b"X-Header: " + b"x" * 1000 + b"\r\n"), "store_answer_malformed"),
    (
        "endless patience",
        send_for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        "store_answer_too_large, or store_timed_out",
    ),
]


@pytest.mark.parametrize("command", CALLS)
@pytest.mark.parametrize(("answer", "reason"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_a_broken_daemon_is_a_named_error(command: str, answer: Answer, reason: str, tmp_path: Path) -> None:
    failed = fail({command: answer}, tmp_path, CALLS[command])
    if command == "block/get" and reason == "store_refused" and "502" not in failed.item:
        reason = "block_absent"
    assert failed.reason in reason.split(", or ")
    assert failed.item.isprintable()


@pytest.mark.parametrize("command", ["pin/ls", "repo/gc", "version", "dag/import"])
@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"[1]", b"1", b'"text"', b"{", b'{"Keys":1}', b"\xff\xfe", b'{"Root":1}{"Root":2}', DEEP],
)
def test_an_answer_of_another_form_is_a_named_error_or_no_harm(command: str, body: bytes, tmp_path: Path) -> None:
    answers = make_honest() | {"pin/ls": pinning(), command: reply(body)}
    if command == "repo/gc" and body in (b"", b'{"Keys":1}', b'{"Root":1}{"Root":2}'):
        with run_daemon(answers) as daemon:
            assert open_store(daemon.address, tmp_path).collect_garbage() == 0
    else:
        assert fail(answers, tmp_path, CALLS[command]).reason == "store_answer_malformed"


def test_nobody_listening_is_a_named_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    store = open_store(f"/ip4/127.0.0.1/tcp/{port}", tmp_path)
    for call in CALLS.values():
        with pytest.raises(StoreFailed, match=f"store_unreachable: /ip4/127.0.0.1/tcp/{port}"):
            call(store)


def test_a_store_that_is_closed_ends_what_waits_for_a_silent_daemon(tmp_path: Path) -> None:
    """Not after the deadline, which is an hour here: a person who interrupts a transfer need not wait for it."""
    asked = threading.Event()

    def say_that_it_was_asked(request: Request) -> None:
        asked.set()
        stay_silent(request)

    with run_daemon({"dag/import": say_that_it_was_asked}) as daemon:
        store = DaemonStore(daemon.address, spool_directory=tmp_path, limits=CallLimits(transfer_ms=3_600_000))
        with ThreadPoolExecutor(1) as executor:
            waiting = executor.submit(put, store)
            assert asked.wait(10)
            store.close()
            with pytest.raises(StoreFailed, match=f"work_abandoned: {daemon.address}"):
                waiting.result(10)
        with pytest.raises(StoreFailed, match="work_abandoned"):
            put(store)
    assert daemon.asked == ["dag/import"]


@pytest.mark.parametrize(
    "address", ["", "nonsense", "/ip4/127.0.0.1", "/ip4/127.0.0.1/udp/5001", "http://127.0.0.1:5001"]
)
def test_an_address_that_is_none_is_a_named_error(address: str) -> None:
    with pytest.raises(StoreFailed, match="store_address_invalid"):
        DaemonStore(address)


@pytest.mark.parametrize("head", [b"", HEAD + b"Content-Length: 2000000\r\n\r\n", CHUNKED + b"fffff\r\n"])
def test_a_slow_drip_ends_at_the_deadline(head: bytes, tmp_path: Path) -> None:
    """Every byte arrives in time, so that no timeout of a single read ever strikes; the clock runs on at each look."""
    clock = itertools.count(step=10)
    with run_daemon({"block/get": send_for_ever(head, b"x")}) as daemon:
        store = open_store(daemon.address, tmp_path, now_ms=lambda: next(clock))
        with pytest.raises(StoreFailed, match="store_timed_out"):
            read(store)
        store.close()
    assert next(clock) < 2 * SHORT.call_ms


def test_a_document_as_a_whole_has_a_deadline_too(tmp_path: Path) -> None:
    """Each block comes in time, and the whole never would."""
    clock = itertools.count(step=60)
    leaves = [compute_cid(RAW, bytes([number])) for number in range(100)]
    tree = encode_node([Link(cid, b"", 1) for cid in leaves], encode_file(content=b"", part_sizes=[1] * 100))
    blocks = {format_cid(cid): bytes([number]) for number, cid in enumerate(leaves)}
    root = compute_cid(DAG_PB, tree)
    given: list[bytes] = []
    with run_daemon({"block/get": serve_blocks(blocks | {format_cid(root): tree})}) as daemon:
        store = DaemonStore(
            daemon.address,
            spool_directory=tmp_path,
            limits=CallLimits(call_ms=2_000, transfer_ms=6_000),
            now_ms=lambda: next(clock),
        )
        with pytest.raises(StoreFailed, match="store_timed_out"):
            given.extend(store.open(root))
        store.close()
    assert 0 < len(given) < 100


@pytest.mark.parametrize(
    "head", [CHUNKED + b"ffffffff\r\n", HEAD + b"Content-Length: 9999999999\r\n\r\n", HEAD + b"\r\n"]
)
@pytest.mark.parametrize("command", ["block/get", "version", "dag/import"])
def test_an_endless_answer_ends_at_the_cap(command: str, head: bytes, tmp_path: Path) -> None:
    with run_daemon({command: send_for_ever(head, bytes(65_536))}) as daemon:
        store = DaemonStore(daemon.address, spool_directory=tmp_path)
        with pytest.raises(StoreFailed, match="store_answer_too_large"):
            CALLS[command](store)
        store.close()


def test_a_block_as_large_as_allowed_is_read_and_a_larger_one_is_not(tmp_path: Path) -> None:
    largest, larger = bytes(BLOCK_BYTES_MAX), bytes(BLOCK_BYTES_MAX + 1)
    blocks = {format_cid(compute_cid(RAW, data)): data for data in (largest, larger)}
    with run_daemon({"block/get": serve_blocks(blocks)}) as daemon:
        store = DaemonStore(daemon.address, spool_directory=tmp_path)
        assert b"".join(store.open(compute_cid(RAW, largest))) == largest
        with pytest.raises(StoreFailed, match="block_too_large"):
            list(store.open(compute_cid(RAW, larger)))
        store.close()


@pytest.mark.parametrize("block", BLOCKS, ids=["leaf", "last leaf", "root"])
@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b"\0" + data[1:]])
def test_not_one_byte_of_an_altered_block_is_given(
    block: Block, change: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    blocks = name_blocks(BLOCKS) | {format_cid(block.cid): change(block.data)}
    given: list[bytes] = []
    failed = fail({"block/get": serve_blocks(blocks)}, tmp_path, lambda store: given.extend(store.open(ROOT)))
    assert failed.reason == "block_hash_wrong"
    assert CONTENT.startswith(b"".join(given))
    assert len(b"".join(given)) < len(CONTENT)


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ({"block/get": serve_blocks({})}, "block_absent"),
        ({"block/get": serve_blocks(name_blocks(BLOCKS[1:]))}, "block_absent"),
        ({"block/get": serve_blocks(name_blocks(BLOCKS) | {format_cid(ROOT): b"lie"})}, "block_hash_wrong"),
        ({"pin/ls": pinning()}, "store_answer_malformed"),
        ({"pin/ls": pinning(HELLO)}, "store_answer_malformed"),
        ({"pin/ls": reply(JSON_ERROR, status="500 Internal Server Error")}, "store_refused"),
        ({"dag/import": reply(b'{"Root":{"Cid":{"/":"x"},"PinErrorMsg":"no room"}}')}, "store_refused"),
    ],
)
def test_a_put_that_a_daemon_only_claims_to_have_done_is_an_error(
    answers: dict[str, Answer], reason: str, tmp_path: Path
) -> None:
    with run_daemon(make_honest() | answers) as daemon:
        store = open_store(daemon.address, tmp_path)
        with pytest.raises(StoreFailed, match=reason):
            put(store)
        daemon.answers.update(make_honest())
        assert put(store) == ROOT
        store.close()


def test_a_lost_connection_is_tried_once_more_and_an_answer_never(tmp_path: Path) -> None:
    with run_daemon(make_honest()) as daemon:
        turns = [send(b""), reply(b"hello world"), reply(b"lie"), send(b""), send(b""), reply(b"hello world")]
        daemon.answers["block/get"] = take_turns(turns)
        store = open_store(daemon.address, tmp_path)
        assert read(store) == b"hello world"
        with pytest.raises(StoreFailed, match="block_hash_wrong"):
            read(store)
        with pytest.raises(StoreFailed, match="store_unreachable"):
            read(store)
        store.close()
    assert daemon.asked == ["block/get"] * 5


def test_an_import_whose_connection_was_lost_is_sent_again_whole(tmp_path: Path) -> None:
    with run_daemon(make_honest()) as daemon:
        turns = [send(b""), daemon.answers["dag/import"]]
        daemon.answers["dag/import"] = take_turns(turns)
        store = open_store(daemon.address, tmp_path)
        assert put(store) == ROOT
        store.close()
    assert daemon.asked[:2] == ["dag/import"] * 2


def test_a_document_over_the_limit_never_reaches_the_daemon(tmp_path: Path) -> None:
    with run_daemon(make_honest()) as daemon:
        store = open_store(daemon.address, tmp_path)
        with pytest.raises(RuleViolated, match="document_too_large"):
            store.put(io.BytesIO(CONTENT), size_max=len(CONTENT) - 1)
        store.close()
    assert daemon.asked == []


def test_pins_of_other_things_and_in_other_bases_are_read_by_their_bytes(tmp_path: Path) -> None:
    names = ["f" + bytes(HELLO).hex(), "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn", "bafyreidepjmjhvhlvp5ey", "?"]
    keys = reply(json.dumps({"Keys": {name: {"Type": "recursive"} for name in names}}).encode())
    with run_daemon({"pin/ls": keys}) as daemon:
        store = open_store(daemon.address, tmp_path)
        assert store.list_pins() == [HELLO]
        store.close()


@pytest.mark.parametrize(
    ("version", "reason"),
    [("0.4.23", "store_version_unsupported"), ("kubo", "store_answer_malformed"), (7, "store_answer_malformed")],
)
def test_a_daemon_that_is_too_old_or_says_no_version_is_refused(version: object, reason: str, tmp_path: Path) -> None:
    with run_daemon({"version": reply(json.dumps({"Version": version}).encode())}) as daemon:
        store = open_store(daemon.address, tmp_path)
        with pytest.raises(StoreFailed, match=reason):
            store.health()
        store.close()


def test_an_error_in_the_middle_of_a_garbage_collection_is_not_taken_for_its_end(tmp_path: Path) -> None:
    body = b'{"Key":{"/":"bafy"}}\n{"Key":{"/":"bafz"}}\n'
    with run_daemon({"repo/gc": reply(body)}) as daemon:
        store = open_store(daemon.address, tmp_path)
        assert store.collect_garbage() == 2
        daemon.answers["repo/gc"] = reply(body + b'{"Error":"disk is broken"}\n')
        with pytest.raises(StoreFailed, match=r"store_refused.*disk is broken"):
            store.collect_garbage()
        store.close()


def test_a_directory_behind_a_cid_is_no_document(tmp_path: Path) -> None:
    data = encode_node([], b"\x08\x01")
    cid = compute_cid(DAG_PB, data)
    with run_daemon({"block/get": reply(data)}) as daemon:
        store = open_store(daemon.address, tmp_path)
        with pytest.raises(Malformed, match="document_not_a_file"):
            list(store.open(cid))
        store.close()


def test_no_proxy_and_no_password_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_daemon({}) as proxy, run_daemon({"block/get": reply(b"hello world")}) as daemon:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.address.rpartition('/')[2]}")
        store = open_store(daemon.address, tmp_path)
        assert read(store) == b"hello world"
        store.close()
    assert proxy.asked == []


def test_the_cap_of_an_answer_is_far_above_what_an_answer_needs() -> None:
    assert len(format_cid(ROOT)) * 100 < ANSWER_BYTES_MAX
