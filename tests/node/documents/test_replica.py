"""Copies of documents: fetched from peers, verified, pinned when whole; one lost disk loses no document."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from contracts_native.documents import (
    AnchorDocument,
    DocumentAnchored,
    DocumentKind,
    GrantDocument,
    RetireDocument,
    SetEncryptionKey,
    WrappedKey,
)
from ledger.primitives import Address, Hash, PublicKey
from ledger.receipt import Event
from node.documents import replica as replica_module
from node.documents.cid import Cid
from node.documents.embedded import EmbeddedStore
from node.documents.replica import Replica
from p2p.messages import DocumentBlock, DocumentBlockRequest, DocumentMessage, PeerMessage, decode_frame, encode_frame
from tests.contracts_native.harness import BOB, RIVAL, UTILITY, Person
from tests.node.documents.samples import Pattern, make_content
from tests.node.query_chain import QueryChain

SIZE_MAX: Final = 1 << 30
DEADLINE_S: Final = 20


class Wire:
    """Nodes in one event loop, each with a store; every message passes through its bytes."""

    def __init__(self, directory: Path, chain: QueryChain) -> None:
        self.directory = directory
        self.chain = chain
        self.replicas: dict[PublicKey, Replica] = {}
        self.stores: dict[PublicKey, EmbeddedStore] = {}
        self.reported: list[tuple[PublicKey, str]] = []
        self.sent: list[PeerMessage] = []
        self.sent_one = asyncio.Event()
        self.change: Callable[[DocumentMessage], DocumentMessage | None] = lambda message: message

    def add(self, name: str, *keep_for: Address) -> PublicKey:
        """A node that begins, and that all others see."""
        key = PublicKey(name.encode().ljust(32, b"."))
        self.stores[key] = EmbeddedStore(self.directory / name)
        self.replicas[key] = Replica(self.stores[key], _End(self, key), keep_for=keep_for)
        self.replicas[key].start(self.chain.store)
        for other in self.replicas:
            if other != key:
                self.replicas[other].on_peer_up(key)
                self.replicas[key].on_peer_up(other)
        return key

    def tell(self, events: Collection[Event]) -> None:
        """All nodes commit a block with these events."""
        for one in self.replicas.values():
            one.on_events(self.chain.store, events)

    async def wait_for(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not holds():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.sent_one.wait(), 0.01)
                self.sent_one.clear()


class _End:
    """One node's end of the wire."""

    def __init__(self, wire: Wire, own: PublicKey) -> None:
        self._wire = wire
        self._own = own

    def send(self, peer_key: PublicKey, message: DocumentMessage) -> bool:
        self._wire.sent.append(message)
        self._wire.sent_one.set()
        changed = self._wire.change(message)
        if changed is not None and peer_key in self._wire.replicas:
            decoded = decode_frame(encode_frame(changed))
            assert isinstance(decoded, DocumentBlockRequest | DocumentBlock)
            asyncio.get_running_loop().call_soon(self._wire.replicas[peer_key].on_message, self._own, decoded)
        return peer_key in self._wire.replicas

    def report(self, peer_key: PublicKey, reason: str) -> None:
        self._wire.reported.append((peer_key, reason))


@asynccontextmanager
async def open_wire(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Wire]:
    monkeypatch.setattr(replica_module, "ANSWER_SECONDS", 1)
    monkeypatch.setattr(replica_module, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(replica_module, "BLOCK_SECONDS_LEAST", 0)
    chain = QueryChain()
    for person in (BOB, UTILITY, RIVAL):
        chain.apply(SetEncryptionKey(make_key(person.name)), by=person)
    wire = Wire(directory, chain)
    try:
        yield wire
    finally:
        for one in wire.replicas.values():
            await one.stop()


def make_key(name: str) -> bytes:
    return name.encode().ljust(31, b".")[:31] + b"\x10"


def anchor(wire: Wire, cid: Cid, size: int, *readers: Person, by: Person = BOB) -> bytes:
    """Anchor what lies in a store; the document's id. Nothing here is a real key: nobody unseals it."""
    paper = AnchorDocument(
        cid=bytes(cid),
        size_bytes=size,
        commitment=Hash(bytes(32)),
        recipient=make_key(str(cid)[-20:]),
        kind=DocumentKind.KYC,
        grants=tuple(WrappedKey(one.address, make_key(one.name), bytes(80)) for one in readers),
        subject=by.address,
    )
    applied = wire.chain.apply(paper, by=by)
    wire.tell(applied.events)
    return applied.one(DocumentAnchored).document


async def test_a_utilitys_node_keeps_what_the_utility_was_granted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_wire(tmp_path, monkeypatch) as wire:
        first = wire.add("first")
        utilitys, rivals = wire.add("utilitys", UTILITY.address), wire.add("rivals", RIVAL.address)
        content = make_content(700_000)
        small = wire.stores[first].put(_Stream(b"sealed"), size_max=SIZE_MAX)
        large = wire.stores[first].put(_Stream(content), size_max=SIZE_MAX)
        document = anchor(wire, small, 6, BOB, UTILITY)
        anchor(wire, large, 700_000, UTILITY)
        await wire.wait_for(lambda: len(wire.stores[utilitys].list_pins()) == 2)
        assert b"".join(wire.stores[utilitys].open(large)) == content
        assert wire.stores[rivals].list_pins() == []
        grant = GrantDocument(document, 1, (WrappedKey(RIVAL.address, make_key("rival"), bytes(80)),))
        wire.tell(wire.chain.apply(grant, by=BOB).events)
        await wire.wait_for(lambda: wire.stores[rivals].list_pins() == [small])
        assert wire.reported == []


async def test_one_lost_disk_loses_no_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_wire(tmp_path, monkeypatch) as wire:
        first, second = wire.add("first", UTILITY.address), wire.add("second", UTILITY.address)
        cids = sorted(wire.stores[first].put(_Stream(make_content(300_000, str(n))), size_max=SIZE_MAX) for n in "abc")
        for cid in cids:
            anchor(wire, cid, 300_000, UTILITY)
        await wire.wait_for(lambda: wire.stores[second].list_pins() == cids)
        await wire.replicas.pop(first).stop()
        wire.replicas[second].on_peer_down(first)
        shutil.rmtree(tmp_path / "first")
        reborn = wire.add("first", UTILITY.address)
        await wire.wait_for(lambda: wire.stores[reborn].list_pins() == cids)
        await wire.wait_for(lambda: wire.replicas[reborn].due == 0)


async def test_a_damaged_block_is_fetched_again_after_its_document_was_unpinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_wire(tmp_path, monkeypatch) as wire:
        first, keeper = wire.add("first"), wire.add("keeper", UTILITY.address)
        content = make_content(700_000)
        cid = wire.stores[first].put(_Stream(content), size_max=SIZE_MAX)
        anchor(wire, cid, len(content), UTILITY)
        await wire.wait_for(lambda: wire.replicas[keeper].due == 0)
        await wire.replicas.pop(keeper).stop()
        largest = max((tmp_path / "keeper" / "blocks").glob("*/*.data"), key=lambda path: path.stat().st_size)
        largest.write_bytes(b"rotten")
        wire.stores[keeper].unpin(cid)
        wire.sent.clear()
        reborn = wire.add("keeper", UTILITY.address)
        await wire.wait_for(lambda: wire.replicas[reborn].due == 0)
        assert b"".join(wire.stores[reborn].open(cid)) == content
        assert len([one for one in wire.sent if isinstance(one, DocumentBlock)]) == 1, "only what was damaged"


async def test_a_lying_peer_is_reported_and_the_next_one_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_wire(tmp_path, monkeypatch) as wire:
        liar, honest = wire.add("a liar"), wire.add("honest")
        cid = wire.stores[honest].put(_Stream(b"sealed"), size_max=SIZE_MAX)
        lies = iter([b"another", b"", b"x" * 270_000])

        def lie(message: DocumentMessage) -> DocumentMessage:
            lied = isinstance(message, DocumentBlock) and message.data is None
            return DocumentBlock(message.cid, next(lies, b"lie")) if lied else message

        wire.change = lie
        keeper = wire.add("keeper", UTILITY.address)
        anchor(wire, cid, 6, UTILITY)
        await wire.wait_for(lambda: wire.stores[keeper].list_pins() == [cid])
        assert set(wire.reported) == {(liar, "document_block_wrong")}


async def test_what_nobody_has_is_asked_for_again_and_the_node_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_wire(tmp_path, monkeypatch) as wire:
        late, keeper = wire.add("late"), wire.add("keeper", UTILITY.address)
        elsewhere = EmbeddedStore(tmp_path / "elsewhere")
        lost = elsewhere.put(_Stream(b"lost"), size_max=SIZE_MAX)
        here = wire.stores[late].put(_Stream(b"here"), size_max=SIZE_MAX)
        anchor(wire, lost, 4, UTILITY)
        anchor(wire, here, 4, UTILITY)
        await wire.wait_for(lambda: wire.stores[keeper].list_pins() == [here])
        await wire.wait_for(lambda: wire.replicas[keeper].due == 1)
        wire.stores[late].put(_Stream(b"lost"), size_max=SIZE_MAX)
        await wire.wait_for(lambda: wire.replicas[keeper].due == 0)
        assert wire.stores[keeper].list_pins() == sorted([here, lost])


async def test_what_an_attempt_brought_is_not_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_wire(tmp_path, monkeypatch) as wire:
        flaky, keeper = wire.add("flaky"), wire.add("keeper", UTILITY.address)
        content = make_content(2_000_000)
        cid = wire.stores[flaky].put(_Stream(content), size_max=SIZE_MAX)
        given: list[bytes] = []
        answers = 0

        def break_off(message: DocumentMessage) -> DocumentMessage:
            nonlocal answers
            if not isinstance(message, DocumentBlock) or message.data is None:
                return message
            answers += 1
            if answers % 3 == 0:
                return DocumentBlock(message.cid, None)
            given.append(message.cid)
            return message

        wire.change = break_off
        anchor(wire, cid, len(content), UTILITY)
        await wire.wait_for(lambda: wire.stores[keeper].list_pins() == [cid])
        assert b"".join(wire.stores[keeper].open(cid)) == content
        assert len(given) == len(set(given)) == 9


async def test_a_slow_peer_does_not_hold_up_other_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "COPY_SECONDS", 1e-9)
    monkeypatch.setattr(replica_module, "COPY_BYTES_PER_SECOND", 1e15)
    async with open_wire(tmp_path, monkeypatch) as wire:
        slow, keeper = wire.add("slow"), wire.add("keeper", UTILITY.address)
        large = wire.stores[slow].put(_Stream(make_content(2_000_000)), size_max=SIZE_MAX)
        small = wire.stores[slow].put(_Stream(b"sealed"), size_max=SIZE_MAX)
        for cid, size in ((large, 2_000_000), (small, 6)):
            anchor(wire, cid, size, UTILITY)
        await wire.wait_for(lambda: small in wire.stores[keeper].list_pins())
        assert large not in wire.stores[keeper].list_pins(), "one block at each turn"
        await wire.wait_for(lambda: large in wire.stores[keeper].list_pins())
        assert wire.reported == []


async def test_a_document_larger_than_anchored_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_wire(tmp_path, monkeypatch) as wire:
        first, keeper = wire.add("first"), wire.add("keeper", UTILITY.address)
        cid = wire.stores[first].put(Pattern(5_000_000), size_max=SIZE_MAX)
        anchor(wire, cid, 262_145, UTILITY)
        await wire.wait_for(lambda: any(isinstance(one, DocumentBlock) for one in wire.sent))
        await wire.wait_for(lambda: len(wire.sent) > 5)
        assert wire.stores[keeper].list_pins() == []
        assert {one.cid for one in wire.sent if isinstance(one, DocumentBlock)} == {bytes(cid)}, "only its root"


async def test_a_silent_peer_costs_a_deadline_and_a_lost_one_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_wire(tmp_path, monkeypatch) as wire:
        silent = wire.add("a silent one")
        wire.change = lambda message: None if isinstance(message, DocumentBlock) else message
        keeper = wire.add("keeper", UTILITY.address)
        cid = EmbeddedStore(tmp_path / "elsewhere").put(_Stream(b"sealed"), size_max=SIZE_MAX)
        anchor(wire, cid, 6, UTILITY)
        await wire.wait_for(lambda: len(wire.sent) >= 4)
        wire.replicas[keeper].on_peer_down(silent)
        honest = wire.add("honest")
        wire.stores[honest].put(_Stream(b"sealed"), size_max=SIZE_MAX)
        wire.change = lambda message: message
        await wire.wait_for(lambda: wire.stores[keeper].list_pins() == [cid])


async def test_a_retired_document_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_wire(tmp_path, monkeypatch) as wire:
        first, keeper = wire.add("first"), wire.add("keeper", UTILITY.address)
        cid = wire.stores[first].put(_Stream(b"sealed"), size_max=SIZE_MAX)
        document = anchor(wire, cid, 6, UTILITY)
        await wire.wait_for(lambda: wire.stores[keeper].list_pins() == [cid])
        wire.tell(wire.chain.apply(RetireDocument(document), by=BOB).events)
        await wire.wait_for(lambda: not wire.stores[keeper].list_pins() and not wire.stores[first].list_pins())


async def test_retiring_a_copy_of_anothers_cid_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_wire(tmp_path, monkeypatch) as wire:
        first, keeper = wire.add("first"), wire.add("keeper", UTILITY.address)
        cid = wire.stores[first].put(_Stream(b"sealed"), size_max=SIZE_MAX)
        bobs = anchor(wire, cid, 6, UTILITY)
        await wire.wait_for(lambda: wire.stores[keeper].list_pins() == [cid])
        thiefs = anchor(wire, cid, 6, RIVAL, by=RIVAL)
        wire.tell(wire.chain.apply(RetireDocument(thiefs), by=RIVAL).events)
        await wire.replicas.pop(first).stop()
        reborn = wire.add("first")  # reads what was retired before it began
        other = wire.stores[reborn].put(_Stream(b"other"), size_max=SIZE_MAX)
        wire.tell(wire.chain.apply(RetireDocument(anchor(wire, other, 5, BOB)), by=BOB).events)
        await wire.wait_for(lambda: wire.stores[reborn].list_pins() == [cid])
        assert wire.stores[keeper].list_pins() == [cid]
        wire.tell(wire.chain.apply(RetireDocument(bobs), by=BOB).events)
        await wire.wait_for(lambda: not wire.stores[keeper].list_pins() and not wire.stores[reborn].list_pins())


async def test_a_node_is_not_filled_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "WANTED_BYTES_MAX", 10)
    async with open_wire(tmp_path, monkeypatch) as wire:
        first, keeper = wire.add("first"), wire.add("keeper", UTILITY.address)
        cids = [wire.stores[first].put(_Stream(content), size_max=SIZE_MAX) for content in (b"sealed", b"more")]
        third = wire.stores[first].put(_Stream(b"much"), size_max=SIZE_MAX)
        for cid, size in ((cids[0], 6), (cids[1], 4), (third, 4)):
            anchor(wire, cid, size, UTILITY)
        await wire.wait_for(lambda: wire.replicas[keeper].due == 0)
        assert wire.stores[keeper].list_pins() == sorted(cids)


async def test_a_request_for_no_cid_is_reported_and_a_late_answer_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_wire(tmp_path, monkeypatch) as wire:
        node = wire.add("node")
        peer = PublicKey(bytes(32))
        wire.replicas[node].on_message(peer, DocumentBlockRequest(bytes(36)))
        wire.replicas[node].on_message(peer, DocumentBlock(b"\x01\x55\x12\x20" + bytes(32), b"late"))
        assert wire.reported == [(peer, "document_cid_invalid")]


async def test_a_node_with_too_much_to_do_says_at_once_that_it_has_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_wire(tmp_path, monkeypatch) as wire:
        node = wire.add("node")
        cid = wire.stores[node].put(_Stream(b"sealed"), size_max=SIZE_MAX)
        monkeypatch.setattr(replica_module, "TASKS_MAX", 1)  # the one that fetches
        wire.replicas[node].on_message(PublicKey(bytes(32)), DocumentBlockRequest(bytes(cid)))
        assert wire.sent == [DocumentBlock(bytes(cid), None)]


class _Stream:
    """Bytes as a stream."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, size: int, /) -> bytes:
        given, self._content = self._content[:size], self._content[size:]
        return given
