"""Joining from several peers' snapshot: liars are named and left, and what comes out is the chain of genesis."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Final

import pytest

from ledger.errors import Rejected
from ledger.primitives import PublicKey, sha256
from ledger.storage import MemoryStore
from node import chain_store, snapshots
from node.snapshot_verifier import Verifier, iterate_writes
from node.snapshots import Manifest, encode_manifest, iterate_chunks, make_manifest
from node.state_sync import ANSWER_TIMEOUT_MS, Ask, Complete, Keep, Liar, StateSync, Step
from p2p.messages import SnapshotPart, SnapshotRequest
from tests.node.recovery_chain import ShortCluster, copy_store, make_chain
from tests.simulator.cluster import make_key
from tests.simulator.world import Timeline

VALIDATORS: Final = 4
TICK_MS: Final = 500


@pytest.fixture(scope="module")
def net() -> ShortCluster:
    return make_chain(height=14, validators=VALIDATORS)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "CHUNK_BYTES", 500)


class Giver:
    """A peer that answers honestly."""

    def __init__(self, manifest: Manifest, chunks: list[bytes]) -> None:
        self.manifest = manifest
        self.chunks = chunks
        self.answered = 0

    def answer(self, request: SnapshotRequest) -> SnapshotPart | None:
        self.answered += 1
        if request.snapshot_id is None:
            return SnapshotPart(None, 0, encode_manifest(self.manifest))
        data = self.chunks[request.index] if request.snapshot_id == self.manifest.compute_id() else b""
        return SnapshotPart(request.snapshot_id, request.index, data)


class FalseChunks(Giver):
    """Offers what all offer, and sends something else."""

    def answer(self, request: SnapshotRequest) -> SnapshotPart | None:
        part = super().answer(request)
        assert part is not None
        return part if request.snapshot_id is None else replace(part, data=part.data[:-1] + b"?")


class Silent(Giver):
    """Offers, and then says nothing."""

    def answer(self, request: SnapshotRequest) -> SnapshotPart | None:
        return super().answer(request) if request.snapshot_id is None else None


class Rubbish(Giver):
    """Sends no manifest at all."""

    def answer(self, request: SnapshotRequest) -> SnapshotPart | None:
        return SnapshotPart(request.snapshot_id, request.index, b"rubbish")


class MovedOn(Giver):
    """Has a newer snapshot by the time it is asked for a chunk."""

    def answer(self, request: SnapshotRequest) -> SnapshotPart | None:
        part = super().answer(request)
        return part if part is None or request.snapshot_id is None else replace(part, data=b"")


def make_snapshot(store: MemoryStore) -> tuple[Manifest, list[bytes]]:
    chunks = list(iterate_chunks(store))
    hashes = [sha256(chunk) for chunk in chunks]
    return make_manifest(store, size_bytes=sum(map(len, chunks)), chunk_hashes=hashes), chunks


def get_peer(number: int) -> PublicKey:
    return make_key(f"validator {number}").public_key


@dataclass
class Joining:
    """A node that joins among these givers, in virtual time, over a network that is late and out of order."""

    net: ShortCluster
    givers: dict[PublicKey, Giver]
    seed: int = 1
    kept: dict[int, bytes] = field(default_factory=dict)
    liars: list[Liar] = field(default_factory=list)
    store: MemoryStore | None = None

    def __post_init__(self) -> None:
        self.sync = StateSync(self.net.genesis)
        self._timeline = Timeline(0)
        self._random = Random(self.seed)

    def run(self, *, within_ms: int = 120_000) -> None:
        for peer in self.givers:
            self.perform(self.sync.note_peer(peer))
        self._tick()
        self._timeline.run_until(within_ms, stop=lambda: self.store is not None)

    def perform(self, steps: list[Step]) -> None:
        for step in steps:
            match step:
                case Ask(peer, request):
                    part = self.givers[peer].answer(request)
                    if part is not None:
                        self._timeline.plan(self._random.randint(1, 60), partial(self._arrive, peer, part))
                case Keep(index, chunk):
                    self.kept[index] = chunk
                case Liar():
                    self.liars.append(step)
                case Complete(manifest):
                    self._write(manifest)

    def _write(self, manifest: Manifest) -> None:
        chunks = [self.kept[index] for index in range(len(manifest.chunk_hashes))]
        try:
            verifier = Verifier(manifest, self.net.genesis)
            for chunk in chunks:
                verifier.take(chunk)
            verifier.finish()
        except Rejected as error:
            self.perform(self.sync.refuse_whole(error))
            return
        store = MemoryStore()
        for batch in iterate_writes(verifier, chunks):
            store.write(batch)
        self.store = store

    def _arrive(self, peer: PublicKey, part: SnapshotPart) -> None:
        self.perform(self.sync.take(peer, part, self._timeline.now_ms))

    def _tick(self) -> None:
        self.perform(self.sync.tick(self._timeline.now_ms))
        self._timeline.plan(TICK_MS, self._tick)


def join(net: ShortCluster, *kinds: type[Giver], seed: int = 1) -> Joining:
    """Run a node that joins; one giver of each kind, as validator 0, 1, 2 …"""
    manifest, chunks = make_snapshot(copy_store(net[0].store))
    joining = Joining(net, {get_peer(number): kind(manifest, chunks) for number, kind in enumerate(kinds)}, seed)
    joining.run()
    return joining


def test_every_peer_gives_a_part_and_the_store_is_that_of_the_chain(net: ShortCluster) -> None:
    joining = join(net, Giver, Giver, Giver)
    assert joining.store is not None
    assert chain_store.load_tree(joining.store).root == chain_store.load_tree(net[0].store).root
    assert joining.liars == []
    assert min(giver.answered for giver in joining.givers.values()) > len(joining.kept) // 6


@pytest.mark.parametrize("seed", range(5))
def test_a_peer_that_sends_false_chunks_is_named_and_the_others_finish(net: ShortCluster, seed: int) -> None:
    joining = join(net, FalseChunks, Giver, Giver, seed=seed)
    assert joining.store is not None
    assert [(liar.peer, liar.reason) for liar in joining.liars] == [(get_peer(0), "chunk_hash_differs")]
    assert joining.givers[get_peer(0)].answered <= 4  # it was asked for nothing more


def test_a_peer_that_sends_rubbish_for_a_manifest_is_named(net: ShortCluster) -> None:
    joining = join(net, Rubbish, Giver, Giver)
    assert joining.store is not None
    assert [liar.peer for liar in joining.liars] == [get_peer(0)]


@pytest.mark.parametrize("kind", [Silent, MovedOn])
def test_a_peer_that_fails_without_lying_is_left_and_not_named(net: ShortCluster, kind: type[Giver]) -> None:
    joining = join(net, kind, Giver, Giver)
    assert joining.store is not None
    assert joining.liars == []


def test_no_more_than_the_faulty_cannot_agree_on_a_snapshot(net: ShortCluster) -> None:
    assert join(net, Giver).store is None  # f = 1: one voice may be a liar's
    manifest, chunks = make_snapshot(copy_store(net[0].store))
    strangers = {make_key(f"stranger {n}").public_key: Giver(manifest, chunks) for n in range(5)}
    joining = Joining(net, {**strangers, get_peer(0): Giver(manifest, chunks)})
    joining.run()
    assert joining.store is None  # strangers have no voice; they may carry chunks


def test_a_liar_alone_in_its_offer_is_outvoted_even_in_what_no_root_proves(net: ShortCluster) -> None:
    honest, lying = copy_store(net[0].store), copy_store(net[0].store)
    lying.write({b"xb" + bytes(20): b"\x97\x01\x00\x00\x00\x00\x00\x00"})
    true, false = make_snapshot(honest), make_snapshot(lying)
    assert true[0].compute_id() != false[0].compute_id()
    joining = Joining(net, {get_peer(0): Giver(*false), get_peer(1): Giver(*true), get_peer(2): Giver(*true)})
    joining.run()
    assert joining.store is not None
    assert joining.store.get(b"xb" + bytes(20)) is None


def test_more_than_f_liars_who_agree_are_found_out_by_the_root_and_all_named(net: ShortCluster) -> None:
    honest, lying = copy_store(net[0].store), copy_store(net[0].store)
    *_, (key, value) = lying.scan(b"scb", b"scc")
    lying.write({key: value[:-1] + bytes([value[-1] ^ 1])})
    true, false = make_snapshot(honest), make_snapshot(lying)
    joining = Joining(net, {get_peer(number): Giver(*false) for number in (0, 1)}, seed=3)
    joining.run(within_ms=5_000)
    assert joining.store is None
    assert {liar.peer for liar in joining.liars} == {get_peer(0), get_peer(1)}
    assert {liar.reason for liar in joining.liars} == {"state_root_differs"}
    joining.givers |= {get_peer(number): Giver(*true) for number in (2, 3)}
    joining.run()
    assert joining.store is not None


def test_when_everybody_leaves_it_begins_anew_with_those_who_come(net: ShortCluster) -> None:
    manifest, chunks = make_snapshot(copy_store(net[0].store))
    joining = Joining(net, {get_peer(number): Silent(manifest, chunks) for number in (0, 1)})
    joining.run(within_ms=ANSWER_TIMEOUT_MS)
    for peer in list(joining.givers):
        joining.perform(joining.sync.forget_peer(peer))
    joining.givers = {get_peer(number): Giver(manifest, chunks) for number in (2, 3)}
    joining.run()
    assert joining.store is not None


def test_what_was_not_asked_for_is_dropped(net: ShortCluster) -> None:
    manifest, chunks = make_snapshot(copy_store(net[0].store))
    sync = StateSync(net.genesis)
    assert sync.take(get_peer(0), SnapshotPart(None, 0, encode_manifest(manifest)), 0) == []
    sync.note_peer(get_peer(0))
    steps = sync.take(get_peer(0), SnapshotPart(manifest.compute_id(), 0, chunks[0]), 0)
    assert not any(isinstance(step, Keep | Liar) for step in steps)
