"""Targets of files that strangers hand in: certificates, snapshots, configurations, keys, documents, meter files."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import Final

from ledger.errors import Malformed, Rejected
from ledger.fields import Json
from ledger.primitives import format_address, sha256
from node import keystore
from node.certificates.format import read_text, write_text
from node.certificates.verify import verify_certificate
from node.config import ConfigError, format_config, make_config, parse_config
from node.documents.car import encode_block as encode_car_block
from node.documents.car import encode_header, read_car
from node.documents.chunking import Layout, build_blocks
from node.documents.cid import DAG_PB, Block, Cid, compute_cid, decode_link, format_cid, parse_any_base, parse_cid
from node.documents.encryption import check_content, encrypt
from node.documents.grants import (
    DocumentKey,
    GrantPlace,
    compute_public_key,
    format_identity,
    open_grant,
    parse_identity,
    seal_grant,
)
from node.documents.reading import find_digests, walk
from node.documents.store import StoreFailed
from node.documents.unixfs import decode_file, decode_node, encode_node
from node.keystore import KeystoreError, MeterSigningKey, load_meter_key, save_key_unencrypted
from node.meter_files.detection import READERS, read_meter_file
from node.meter_files.model import Event, MeterFile, MeterFileError, collect_channels
from node.meter_files.stretches import regroup, split_into_reports
from node.meter_files.summary import summarise_events
from node.snapshot_files import MAGIC, SnapshotFile, SnapshotFileError
from node.snapshot_verifier import Verifier
from node.snapshots import Manifest, decode_manifest, encode_manifest, iterate_chunks, make_manifest, verify_manifest
from tests.contracts_native.harness import ALICE
from tests.examples.test_verify_certificate import SUBJECTS, ask_first, ask_second, issue
from tests.fuzz import samples
from tests.fuzz.ledger_targets import make_directory, write_file
from tests.fuzz.target import Target
from tests.node.certificate_chain import make_market, seal

SIZE_MAX: Final = 1024 * 1024
KEY: Final = DocumentKey(bytes(range(32)))
PLACE: Final = GrantPlace("chain", b"document", ALICE.address)
PASSPHRASE: Final = "correct horse"
COST_MAX: Final = 2**10  # of scrypt
SMALL: Final = Layout(chunk_bytes=16, links_max=3)


def take_certificate(data: bytes) -> None:
    """Both verifiers, which share no code, believe it or neither does."""
    document = read_text(data)
    _ask_both(document)
    if isinstance(document, dict):
        with suppress(UnicodeEncodeError):  # a lone surrogate, which has no bytes to hash
            document = seal(document)  # a forger knows how the id is made
        _ask_both(document)
    verify_certificate(document, make_market().chain.document)


def _ask_both(document: Json) -> None:
    first, second = ask_first(document), ask_second(document)
    assert bool(first) == bool(second), f"one verifier says {first or second!a}, the other believes it"


def list_certificate_seeds() -> list[bytes]:
    return [write_text(issue(subject)) for subject in SUBJECTS]


@cache
def list_chunks() -> tuple[bytes, ...]:
    return tuple(iterate_chunks(make_market().chain.store))


def make_snapshot_manifest(chunks: tuple[bytes, ...]) -> Manifest:
    """What a liar offers: the true header, and whatever chunks."""
    hashes = [sha256(chunk) for chunk in chunks]
    return make_manifest(make_market().chain.store, size_bytes=sum(map(len, chunks)), chunk_hashes=hashes)


def take_manifest(data: bytes) -> None:
    manifest = decode_manifest(data)
    assert encode_manifest(manifest) == data
    verify_manifest(manifest, make_market().chain.document)


def take_chunks(data: bytes) -> None:
    half = len(data) // 2
    chunks = (data[:half], data[half:])
    verifier = Verifier(make_snapshot_manifest(chunks), make_market().chain.document)
    for chunk in chunks:
        verifier.take(chunk)
    verifier.finish()


def take_snapshot_file(data: bytes) -> None:
    file = SnapshotFile(write_file("snapshot", data))
    try:
        list(file.iterate_chunks())
    finally:
        file.close()


def list_manifest_seeds() -> list[bytes]:
    return [encode_manifest(make_snapshot_manifest(list_chunks()))]


def list_snapshot_file_seeds() -> list[bytes]:
    (manifest,) = list_manifest_seeds()
    chunk = b"".join(list_chunks())
    return [MAGIC + chunk + manifest + sha256(manifest) + len(manifest).to_bytes(4, "big") + MAGIC]


def take_config(data: bytes) -> None:
    config = parse_config(data.decode(errors="replace"), home=make_directory())
    assert parse_config(format_config(config), home=make_directory()) == config


def list_config_seeds() -> list[bytes]:
    peer = f'[[p2p.peers]]\npublic_key = "{ALICE.public_key.hex()}"\nhost = "10.0.0.1"\nport = 1\n'
    lists = f'[rpc]\ntokens = ["{"0" * 64}"]\norigins = ["https://a.example"]\n'
    kept = f'[documents]\nkeep_for = ["{format_address(ALICE.address)}"]\n'
    return [format_config(make_config(make_directory())).encode(), (peer + lists + kept).encode()]


def take_key_file(data: bytes) -> None:
    """A stranger who can write a key file knows its checksum. What it may cost is limited, and not tried out here."""
    path = write_file("some.key.json", data)
    with suppress(ValueError, RecursionError):
        document = json.loads(data)
        if isinstance(document, dict):
            document["checksum"] = keystore._compute_checksum(document)
            path.write_text(json.dumps(document))
            kdf = document.get("kdf")
            if isinstance(kdf, dict) and isinstance(kdf.get("n"), int) and kdf["n"] > COST_MAX:
                return
    load_meter_key(path, PASSPHRASE)


def list_key_file_seeds() -> list[bytes]:
    path = make_directory() / "clear.key.json"
    if not path.exists():
        save_key_unencrypted(path, MeterSigningKey.from_seed(bytes(31) + b"\1", "p256"))
    return [path.read_bytes(), samples.KEY_FILE]


def take_cid(data: bytes) -> None:
    """The text of a CID in our form and in any, and the bytes of a link: the first byte says which."""
    kind, rest = data[:1], data[1:]
    if kind == b"b":
        assert bytes(decode_link(rest)) == rest
    elif kind == b"a":
        parse_any_base(rest.decode(errors="replace"))
    else:
        text = rest.decode(errors="replace")
        assert format_cid(parse_cid(text)) == text


def list_cid_seeds() -> list[bytes]:
    cids = [block.cid for block in make_document_blocks()[:1]]
    cids += [Cid(DAG_PB, cids[0].digest), Cid(DAG_PB, cids[0].digest, version=0)]
    return [
        *(b"b" + bytes(cid) for cid in cids),
        *(b"a" + format_cid(cid).encode() for cid in cids),
        *(b"a" + mark + bytes(cids[0]).hex().encode() for mark in (b"f", b"F")),
        *(b"t" + format_cid(cid).encode() for cid in cids[:2]),
    ]


@cache
def make_document_blocks() -> tuple[Block, ...]:
    return tuple(build_blocks(io.BytesIO(bytes(range(100))), size_max=SIZE_MAX, layout=SMALL))


def take_car(data: bytes) -> None:
    """An archive, and every document whose root it names: only what is in it is there."""
    car = read_car(io.BytesIO(data))
    held = {block.cid.digest: block.data for block in car.blocks}

    def get_block(cid: Cid) -> bytes:
        if cid.digest not in held:
            raise StoreFailed("block_absent", cid)
        return held[cid.digest]

    for root in car.roots:
        size = sum(len(visit.content) for visit in walk(get_block, root, size_max=SIZE_MAX))
        assert size <= SIZE_MAX
        list(find_digests(get_block, root))


def list_car_seeds() -> list[bytes]:
    seeds = []
    for layout in (SMALL, Layout(chunk_bytes=40, raw_leaves=False, cid_version=0), Layout()):
        blocks = list(build_blocks(io.BytesIO(bytes(range(100))), size_max=SIZE_MAX, layout=layout))
        seeds.append(encode_header(blocks[-1].cid) + b"".join(map(encode_car_block, blocks)))
    return seeds


def take_document_root(data: bytes) -> None:
    """A root that hashes to its name, whatever it says, above the honest blocks of a document."""
    held = {block.cid.digest: block.data for block in make_document_blocks()}
    root = compute_cid(DAG_PB, data)
    held[root.digest] = data
    for visit in walk(lambda cid: held.get(cid.digest, b""), root, size_max=SIZE_MAX):
        assert visit.size <= SIZE_MAX
    list(find_digests(lambda cid: held.get(cid.digest, b""), root))


def take_unixfs(data: bytes) -> None:
    node = decode_node(data)
    decode_file(node)
    assert decode_node(encode_node(node.links, node.data or b"")).links == node.links


def list_unixfs_seeds() -> list[bytes]:
    return [block.data for block in make_document_blocks() if block.cid.codec == DAG_PB]


def take_encrypted(data: bytes) -> None:
    check_content(io.BytesIO(data), KEY, size_max=SIZE_MAX, commitment=bytes(32))


def list_encrypted_seeds() -> list[bytes]:
    target = io.BytesIO()
    encrypt(io.BytesIO(b"a contract"), target, KEY)
    return [target.getvalue(), b"age-encryption.org/v1\n-> X25519 " + b"A" * 43 + b"\n" + b"A" * 43 + b"\n--- "]


def take_grant(data: bytes) -> None:
    """A grant, or after an ``i`` the text of a document's key."""
    if data[:1] == b"i":
        text = data[1:].decode(errors="replace")
        assert format_identity(parse_identity(text)) == text
    else:
        open_grant(data[1:], bytes(range(32)), PLACE)


def list_grant_seeds() -> list[bytes]:
    sealed = seal_grant(KEY, compute_public_key(bytes(range(32))), PLACE)
    return [b"g" + sealed, b"i" + format_identity(KEY).encode()]


def take_meter_file(form: str | None, data: bytes) -> None:
    """However the bytes are cut, the same comes of them; and reports can be made of it, or are refused by name."""
    whole = _read_events(form, lambda: iter((data,)))
    cut = _read_events(form, lambda: (data[at : at + 61] for at in range(0, len(data), 61)))
    assert cut == whole
    events, reason = whole
    for summary in summarise_events(events):
        json.dumps(summary.to_json())
    for channel in collect_channels(events):
        for stretch in split_into_reports(regroup(channel, 3_600), intervals_max=100):
            assert stretch.register_end_wh - stretch.register_start_wh == sum(stretch.values_wh)
    if reason:
        raise MeterFileError(reason)


def _read_events(form: str | None, chunks: Callable[[], Iterator[bytes]]) -> tuple[list[Event], str]:
    events: list[Event] = []
    try:
        events.extend(read_meter_file(MeterFile("file", chunks), form))
    except MeterFileError as error:
        return events, error.reason
    return events, ""


def make_meter_target(name: str, form: str | None, seeds: tuple[bytes, ...]) -> Target:
    return Target(name, lambda data: take_meter_file(form, data), (MeterFileError,), lambda: seeds)


ALL_SAMPLES: Final = samples.METER_FILES
FILE_TARGETS: Final = (
    Target("certificate", take_certificate, (Rejected,), list_certificate_seeds),
    Target("manifest", take_manifest, (Rejected,), list_manifest_seeds),
    Target("chunks", take_chunks, (Rejected,), lambda: [b"".join(list_chunks())]),
    Target("snapshot-file", take_snapshot_file, (SnapshotFileError, Rejected), list_snapshot_file_seeds),
    Target("config", take_config, (ConfigError,), list_config_seeds),
    Target("key-file", take_key_file, (KeystoreError,), list_key_file_seeds),
    Target("cid", take_cid, (Malformed,), list_cid_seeds),
    Target("car", take_car, (Rejected, StoreFailed), list_car_seeds),
    Target("document-root", take_document_root, (Rejected, StoreFailed), list_unixfs_seeds),
    Target("unixfs", take_unixfs, (Malformed,), list_unixfs_seeds),
    Target("encrypted-document", take_encrypted, (Rejected,), list_encrypted_seeds),
    Target("grant", take_grant, (Malformed,), list_grant_seeds),
    *(make_meter_target(form, form, ALL_SAMPLES[form]) for form in sorted(READERS)),
    make_meter_target("meter-file", None, tuple(one for form in sorted(ALL_SAMPLES) for one in ALL_SAMPLES[form])),
)
