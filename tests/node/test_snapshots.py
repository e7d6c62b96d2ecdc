"""A snapshot says what the certified header says or is refused whole, and a node that starts from it goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from consensus.messages import ChainContext, CommitCertificate, CommitSignature, Precommit, compute_signed_bytes
from consensus.validators import Validator, ValidatorSet
from contracts_native.table import load_table
from ledger.block import compute_block_id
from ledger.encoding import decode, encode
from ledger.errors import Rejected
from ledger.genesis import compute_genesis_hash
from ledger.primitives import Hash, Height, sha256
from ledger.storage import BLOCKS, INDEXES, RECEIPTS, STATE, MemoryStore, compute_prefix_end, format_height
from node import chain_store, snapshots
from node.keystore import SigningKey
from node.leveldb_store import LevelDbStore
from node.rollback import import_snapshot
from node.snapshot_files import SnapshotFile, SnapshotFileError, write_snapshot_file
from node.snapshot_verifier import Verifier, iterate_writes
from node.snapshots import Link, Manifest, decode_manifest, encode_manifest, iterate_chunks, make_manifest
from node.verification import verify_store
from tests.node.recovery_chain import LIFETIME_BLOCKS, ShortCluster, copy_store, make_chain
from tests.simulator.checkers import check_agreement, check_nothing_signed_twice
from tests.simulator.cluster import make_key

HEIGHT: Final = 20


@pytest.fixture(scope="module")
def net() -> ShortCluster:
    return make_chain(height=HEIGHT)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many chunks of a small state: records lie across their borders."""
    monkeypatch.setattr(snapshots, "CHUNK_BYTES", 700)
    monkeypatch.setattr("node.snapshot_files.CHUNK_BYTES", 700)
    monkeypatch.setattr("node.snapshot_verifier.KEYS_PER_TURN", 7)


def make_snapshot(store: MemoryStore) -> tuple[Manifest, list[bytes]]:
    chunks = list(iterate_chunks(store))
    size = sum(map(len, chunks))
    return make_manifest(store, size_bytes=size, chunk_hashes=[sha256(chunk) for chunk in chunks]), chunks


def take_all(manifest: Manifest, chunks: list[bytes], net: ShortCluster) -> Verifier:
    verifier = Verifier(manifest, net.genesis)
    for chunk in chunks:
        verifier.take(chunk)
    verifier.finish()
    return verifier


def import_into_memory(manifest: Manifest, chunks: list[bytes], net: ShortCluster) -> MemoryStore:
    store = MemoryStore()
    for batch in iterate_writes(take_all(manifest, chunks, net), chunks):
        store.write(batch)
    return store


def test_an_imported_store_has_the_same_state_and_the_blocks_of_one_lifetime(net: ShortCluster) -> None:
    source = copy_store(net[0].store)
    head = chain_store.read_head_height(source)
    store = import_into_memory(*make_snapshot(source), net)
    for prefix in (STATE, b"n", INDEXES):
        stop = compute_prefix_end(prefix)
        assert list(store.scan(prefix, stop)) == list(source.scan(prefix, stop))
    assert chain_store.read_head_height(store) == head
    assert chain_store.read_oldest_height(store) == head + 1 - LIFETIME_BLOCKS
    for height in range(head + 1 - LIFETIME_BLOCKS, head + 1):
        for prefix in (BLOCKS, RECEIPTS):
            assert store.get(prefix + format_height(height)) == source.get(prefix + format_height(height))
    assert chain_store.find_block(store, head - LIFETIME_BLOCKS) is None
    assert [one.is_executed for one in verify_store(store, net.genesis, load_table())] == [False] * LIFETIME_BLOCKS


def test_nodes_agree_on_the_snapshot_of_a_height_whatever_certificates_they_hold(net: ShortCluster) -> None:
    height = min(node.height for node in net.nodes)
    ids = {make_snapshot(copy_store(node.store))[0].compute_id() for node in net.nodes if node.height == height}
    assert len(ids) == 1


def test_a_node_that_starts_from_a_snapshot_follows_and_votes() -> None:
    net = make_chain(height=9, seed=4)
    manifest, chunks = make_snapshot(net[0].store)
    net.crash(3)
    net.run_with_load(height=14)
    net[3].store = import_into_memory(manifest, chunks, net)
    net[3].lose_journal()
    net.restart(3)
    net.run_until(height=net[0].height + 3)
    check_agreement(net)
    check_nothing_signed_twice(net)
    assert any(number == 3 for number, _ in net.observed.sent[-40:])


def test_a_transaction_of_before_the_snapshot_is_no_second_time_admitted() -> None:
    net = make_chain(height=9, seed=4)
    blocks = [chain_store.find_block(net[0].store, height) for height in range(4, net[0].height + 1)]
    raw = next(block.transactions[0] for block in reversed(blocks) if block is not None and block.transactions)
    store = import_into_memory(*make_snapshot(net[0].store), net)
    net.crash(3)
    net[3].store = store
    net.restart(3)
    core = net[3].core
    assert core is not None
    with pytest.raises(Rejected, match="transaction_already_committed"):
        core.simulate(raw, net.timeline.now_ms)


def test_every_byte_changed_in_a_chunk_is_noticed(net: ShortCluster) -> None:
    manifest, chunks = make_snapshot(copy_store(net[0].store))
    for number in range(len(chunks)):
        wrong = [*chunks]
        wrong[number] = bytes([chunks[number][0] ^ 1]) + chunks[number][1:]
        with pytest.raises(Rejected, match=f"chunk_hash_differs: chunk {number}"):
            take_all(manifest, wrong, net)


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [
        (b"scb", "state_root_differs"),
        (b"sva", "state_root_differs"),
        (BLOCKS, "block_transactions_differ|block_malformed|blocks_do_not_lead_to_head|encoding"),
        (RECEIPTS, "block_receipts_differ|encoding"),
    ],
)
def test_a_giver_that_lies_consistently_is_refused_by_the_certified_header(
    net: ShortCluster, prefix: bytes, reason: str
) -> None:
    lying = copy_store(net[0].store)
    *_, (key, value) = lying.scan(prefix, compute_prefix_end(prefix))
    lying.write({key: value[:-1] + bytes([value[-1] ^ 1])})
    with pytest.raises(Rejected, match=reason):
        take_all(*make_snapshot(lying), net)


def test_a_value_left_out_or_put_in_is_refused(net: ShortCluster) -> None:
    for change in (None, b"\xc0"):
        lying = copy_store(net[0].store)
        *_, (key, _) = lying.scan(STATE, compute_prefix_end(STATE))
        lying.write({key if change is None else key + b"x": change})
        with pytest.raises(Rejected, match="state_root_differs"):
            take_all(*make_snapshot(lying), net)


def test_fewer_blocks_than_a_transaction_lives_are_refused(net: ShortCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(snapshots, "compute_oldest_needed", lambda head, _lifetime: head - 2)
        manifest, chunks = make_snapshot(copy_store(net[0].store))
    with pytest.raises(Rejected, match="blocks_too_few"):
        take_all(manifest, chunks, net)


def test_a_snapshot_cut_short_is_refused(net: ShortCluster) -> None:
    manifest, chunks = make_snapshot(copy_store(net[0].store))
    with pytest.raises(Rejected, match="snapshot_incomplete"):
        take_all(manifest, chunks[:-1], net)


def test_a_manifest_of_another_chain_or_without_a_quorum_is_refused(net: ShortCluster) -> None:
    manifest, _ = make_snapshot(copy_store(net[0].store))
    link = manifest.links[-1]
    few = replace(link.certificate, signatures=link.certificate.signatures[:2])
    false_header = replace(link.header, state_root=Hash(bytes(32)))
    for wrong, reason in (
        (replace(manifest, genesis=replace(manifest.genesis, time_ms=1)), "snapshot_of_another_chain"),
        (replace(manifest, links=(replace(link, certificate=few),)), "certificate_signatures_too_few"),
        (replace(manifest, links=(replace(link, header=false_header),)), "certificate_of_another_block"),
        (replace(manifest, links=(link, link)), "header_not_next"),
    ):
        with pytest.raises(Rejected, match=reason):
            Verifier(wrong, net.genesis)


def make_set(*names: str) -> tuple[ValidatorSet, list[SigningKey]]:
    keys = [make_key(name) for name in names]
    return ValidatorSet(tuple(Validator(key.public_key, f"v{i}") for i, key in enumerate(keys))), keys


def make_link(net: ShortCluster, height: int, sets: tuple[ValidatorSet, ValidatorSet], keys: list[SigningKey]) -> Link:
    """A header made up for a height, certified by these keys."""
    before, after = (one.compute_hash() for one in sets)
    model = chain_store.get_header(net[0].store, 1)
    header = replace(model, height=height, validators_hash=before, next_validators_hash=after)
    context = ChainContext(net.genesis.chain_id, compute_genesis_hash(net.genesis))
    vote = Precommit(Height(height), 0, compute_block_id(header))
    signed = compute_signed_bytes(context, vote)
    signatures = tuple(CommitSignature(key.public_key, key.sign(signed)) for key in keys)
    certificate = CommitCertificate(context.compute_hash(), vote.height, 0, compute_block_id(header), signatures)
    return Link(header, certificate, sets[0])


def test_trust_goes_along_every_change_of_the_validators(net: ShortCluster) -> None:
    first, first_keys = make_set(*(f"validator {i}" for i in range(4)))
    second, second_keys = make_set("validator 0", "validator 1", "validator 2", "validator 3", "new")
    third, third_keys = make_set("new", "newer")
    handover = make_link(net, 7, (first, second), first_keys)
    further = make_link(net, 30, (second, third), second_keys)
    head = make_link(net, 99, (third, third), third_keys)
    size, hashes = 1, (Hash(bytes(32)),)
    snapshots.verify_manifest(Manifest(net.genesis, (handover, further, head), size, hashes), net.genesis)
    for links, reason in (
        ((handover, head), "validators_not_announced"),
        ((head,), "validators_not_announced"),
        ((further, handover, head), "validators_not_announced"),
        ((handover, replace(further, validators=first), head), "validators_not_those_of_header"),
        ((make_link(net, 7, (first, third), third_keys), head), "certificate_signer_unknown"),
    ):
        with pytest.raises(Rejected, match=reason):
            snapshots.verify_manifest(Manifest(net.genesis, links, size, hashes), net.genesis)


def test_a_manifest_comes_back_from_its_bytes_and_rubbish_is_refused(net: ShortCluster) -> None:
    manifest, _ = make_snapshot(copy_store(net[0].store))
    assert decode_manifest(encode_manifest(manifest)) == manifest
    for rubbish in (b"", b"\x00", encode(("wattprint-snapshot-9",)), encode_manifest(manifest)[:-1], encode((1, 2))):
        with pytest.raises(Rejected):
            decode_manifest(rubbish)


def test_a_truth_value_is_no_number(net: ShortCluster) -> None:
    """It equals 1, but has other bytes: one manifest, or one record, would have two forms."""
    whole = decode(encode_manifest(make_snapshot(copy_store(net[0].store))[0]))
    assert isinstance(whole, tuple)
    with pytest.raises(Rejected, match="manifest_malformed"):
        decode_manifest(encode((*whole[:3], True, (bytes(32),))))
    record = encode((True, STATE + b"key", b"value"))
    chunk = len(record).to_bytes(4, "big") + record
    manifest = make_manifest(net[0].store, size_bytes=len(chunk), chunk_hashes=[sha256(chunk)])
    with pytest.raises(Rejected, match="snapshot_malformed"):
        take_all(manifest, [chunk], net)


def test_a_file_goes_into_a_home_whole_or_not_at_all(net: ShortCluster, tmp_path: Path) -> None:
    path, home = tmp_path / "snapshot", tmp_path / "state"
    write_snapshot_file(path, copy_store(net[0].store))
    with pytest.raises(SnapshotFileError, match="snapshot_file_exists"):
        write_snapshot_file(path, copy_store(net[0].store))
    whole = path.read_bytes()
    for damaged in (whole[:-1], whole[:1000], b"", whole[:20] + b"\xff" + whole[21:], whole[:-60] + b"x" + whole[-59:]):
        path.write_bytes(damaged)
        with pytest.raises((SnapshotFileError, Rejected)):
            import_file(path, home, net)
        assert [one.name for one in tmp_path.iterdir()] == ["snapshot"]
    path.write_bytes(whole)
    import_file(path, home, net)
    store = LevelDbStore(home)
    assert chain_store.get_header(store, net[0].height) == chain_store.get_header(net[0].store, net[0].height)
    again = tmp_path / "again"
    write_snapshot_file(again, store)
    store.close()
    assert again.read_bytes() == whole


def import_file(path: Path, home: Path, net: ShortCluster) -> None:
    file = SnapshotFile(path)
    try:
        import_snapshot(file, home, net.genesis, lambda: None)
    finally:
        file.close()
