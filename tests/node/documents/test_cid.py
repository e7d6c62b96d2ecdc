"""CIDs: one text for one document, the reference vectors for every layout, and nothing believed that is malformed."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator, Mapping
from typing import cast

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from ledger.errors import Malformed, RuleViolated
from node.documents.chunking import LAYOUT, Layout, build_blocks
from node.documents.cid import (
    DAG_PB,
    RAW,
    Cid,
    compute_cid,
    decode_cid,
    decode_link,
    decode_varint,
    encode_varint,
    format_cid,
    parse_any_base,
    parse_cid,
)
from node.documents.store import Readable
from node.documents.unixfs import LINKS_MAX, Link, decode_file, decode_node, encode_file, encode_node
from tests.node.documents.samples import (
    SIZE_MAX,
    VECTORS,
    Pattern,
    get_number,
    get_text,
    load_vectors,
    read_content,
    read_layout,
)

Vector = Mapping[str, object]
HELLO = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
DIRECTORY = b"\x08\x01"


def measure(stream: Readable, layout: Layout) -> tuple[str, int]:
    """The text of a stream's CID, and the size of all its blocks."""
    size = 0
    for block in build_blocks(stream, size_max=SIZE_MAX, layout=layout):
        size += len(block.data)
    return format_cid(block.cid), size


def test_every_reference_file_gets_its_cid_and_the_size_of_its_tree() -> None:
    vectors = cast("list[Vector]", load_vectors("files.json"))
    wrong = []
    for item in vectors:
        content = read_content(item)
        assert hashlib.sha256(content).hexdigest() == item["sha256"]
        if measure(io.BytesIO(content), read_layout(item)) != (item["cid"], item["dag_size"]):
            wrong.append(item)
    assert wrong == []
    ours = [item for item in vectors if read_layout(item) == LAYOUT]
    assert max(get_number(item, "size") for item in ours) > LAYOUT.chunk_bytes * LAYOUT.links_max


def test_every_file_that_kubo_publishes_gets_its_cid() -> None:
    """Two of them have a gigabyte; like all others they pass as a stream."""
    published = cast("dict[str, object]", load_vectors("kubo_published.json"))
    profiles = cast("dict[str, Vector]", published["profiles"])
    files = cast("list[Vector]", published["files"])
    assert len(files) == 10
    for item in files:
        stream = io.BytesIO(get_text(item, "utf8").encode()) if "utf8" in item else KeyStream(item)
        assert measure(stream, read_layout(profiles[get_text(item, "profile")]))[0] == item["cid"], item


class KeyStream:
    """The content of a published file: a key stream of ChaCha20."""

    def __init__(self, item: Vector) -> None:
        key = hashlib.sha256(get_text(item, "seed").encode()).digest()
        self._cipher = Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor()
        self._left = get_number(item, "size")

    def read(self, size: int, /) -> bytes:
        count = min(size, self._left)
        self._left -= count
        return self._cipher.update(bytes(count))


@pytest.mark.parametrize(("profile", "layout"), [("kubo-v1-raw", LAYOUT), ("kubo-v0", Layout(262_144, 174, False, 0))])
def test_every_reference_directory_hashes_to_its_cid(profile: str, layout: Layout) -> None:
    for tree in cast("list[Vector]", load_vectors("directories.json")):
        expected = cast("dict[str, Vector]", tree["expected"])[profile]
        entries = cast("dict[str, str]", tree["entries"])
        files = {path: text.encode() for path, text in entries.items()}
        cid, size = hash_directory(files, layout)
        assert (format_cid(cid), size) == (expected["cid"], expected["dag_size"]), tree["name"]


def test_the_welcome_directory_of_kubo_has_its_well_known_cid() -> None:
    known = cast("Vector", load_vectors("init_doc.json"))
    files = {name: (VECTORS / "init-doc" / name).read_bytes() for name in cast("dict[str, str]", known["files"])}
    assert format_cid(hash_directory(files, Layout(262_144, 174, False, 0))[0]) == known["cid"]


def hash_directory(files: Mapping[str, bytes], layout: Layout) -> tuple[Cid, int]:
    """The CID of a directory, and the size of its tree; documents are files, so this stands in the test."""
    below: dict[str, dict[str, bytes]] = {}
    links = []
    for path, content in files.items():
        name, _, rest = path.partition("/")
        if rest:
            below.setdefault(name, {})[rest] = content
        else:
            blocks = list(build_blocks(io.BytesIO(content), size_max=SIZE_MAX, layout=layout))
            links.append(Link(blocks[-1].cid, name.encode(), sum(len(block.data) for block in blocks)))
    links += [Link(cid, name.encode(), size) for name, (cid, size) in hash_below(below, layout)]
    data = encode_node(sorted(links, key=lambda link: link.name), DIRECTORY)
    return compute_cid(DAG_PB, data, version=layout.cid_version), len(data) + sum(link.tree_bytes for link in links)


def hash_below(below: Mapping[str, Mapping[str, bytes]], layout: Layout) -> Iterator[tuple[str, tuple[Cid, int]]]:
    for name, files in below.items():
        yield name, hash_directory(files, layout)


def test_the_size_of_the_pieces_that_a_stream_gives_changes_nothing() -> None:
    whole = measure(Pattern(600_000, piece_max=1 << 30), LAYOUT)
    assert [measure(Pattern(600_000, piece_max=piece), LAYOUT) for piece in (997, 262_144, 262_145)] == [whole] * 3


@pytest.mark.parametrize("size", [0, 1, 10])
def test_a_stream_over_the_limit_is_refused_and_one_at_the_limit_is_not(size: int) -> None:
    list(build_blocks(Pattern(size), size_max=size))
    with pytest.raises(RuleViolated, match="document_too_large"):
        list(build_blocks(Pattern(size + 1), size_max=size))


def test_a_text_is_read_back_as_the_cid_that_it_was_made_from() -> None:
    cid = parse_cid(HELLO)
    assert cid == compute_cid(RAW, b"hello world")
    assert format_cid(cid) == HELLO
    assert decode_cid(bytes(cid)) == cid
    assert len(bytes(cid)) == 36


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b",
        HELLO[:-1],
        HELLO + "a",
        HELLO.upper(),
        "B" + HELLO[1:].upper(),
        HELLO[:10] + HELLO[10].upper() + HELLO[11:],
        HELLO[:-1] + "f",  # the same bytes: only the bits past their end differ
        f"/ipfs/{HELLO}",
        f"{HELLO}/a",
        f" {HELLO}",
        HELLO[:-1] + "\u0435",
        HELLO[:-1] + "1",
        HELLO[:-1] + "=",
        "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD",
        "z" + HELLO[1:],
        "bafyreidepjmjhvhlvp5eyxqpmyyi7rxwvl7wsglwai3cnvq63komq4tdya",  # dag-cbor
        "b" + "a" * 58,
    ],
)
def test_any_other_text_is_no_cid(text: str) -> None:
    with pytest.raises(Malformed, match="cid_invalid"):
        parse_cid(text)


def test_a_cid_of_a_daemon_is_read_in_every_base() -> None:
    cid = parse_cid(HELLO)
    data = bytes(cid)
    texts = [HELLO, HELLO.upper(), "f" + data.hex(), "F" + data.hex().upper()]
    texts.append("u" + base64.urlsafe_b64encode(data).decode().rstrip("="))
    texts.append("zb2rhj7crUKTQYRGCRATFaQ6YFLTde2YzdqbbhAASkL9uRDXn")
    assert [parse_any_base(text) for text in texts] == [cid] * 6
    old = "Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD"
    assert format_cid(parse_any_base(old)) == old
    assert decode_link(bytes(parse_any_base(old))) == parse_any_base(old)


@pytest.mark.parametrize("text", ["", "z0", "zO", "f0g", "b1", "u*", "k51", "x" * 200, "Qm" + "0" * 44, "\u00e9"])
def test_nonsense_of_a_daemon_is_no_cid_in_any_base(text: str) -> None:
    with pytest.raises(Malformed, match="cid_invalid"):
        parse_any_base(text)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**63 - 1])
def test_a_number_is_read_back(value: int) -> None:
    data = encode_varint(value)
    assert decode_varint(b"x" + data + b"y", 1, reason="bad") == (value, 1 + len(data))


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80\x00", b"\xff\x00", b"\xff" * 9 + b"\x01"])
def test_a_number_cut_short_too_long_or_padded_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed, match="bad"):
        decode_varint(data, 0, reason="bad")


def test_a_node_is_read_back_with_its_links_and_sizes() -> None:
    links = tuple(Link(compute_cid(RAW, bytes([i])), b"", i + 1) for i in range(3))
    node = decode_node(encode_node(links, encode_file(content=b"", part_sizes=(1, 2, 3))))
    assert node.links == links
    file = decode_file(node)
    assert (file.content, file.part_sizes, file.size) == (b"", (1, 2, 3), 6)


LINK = Link(compute_cid(RAW, b"a"), b"", 1)


def field(number: int, value: bytes) -> bytes:
    return encode_varint(number << 3 | 2) + encode_varint(len(value)) + value


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x0a", "dag_node_malformed"),
        (b"\x0a\x05abc", "dag_node_malformed"),
        (b"\x08\x01", "dag_node_malformed"),  # a number where there are none
        (field(3, b""), "dag_node_malformed"),
        (field(1, b"") + field(1, b""), "dag_node_malformed"),
        (field(1, b"") + field(2, b""), "dag_node_malformed"),  # data before links
        (field(2, b""), "dag_node_malformed"),  # a link to nowhere
        (field(2, field(2, b"") + field(1, bytes(LINK.cid))), "dag_node_malformed"),
        (field(2, field(1, b"nonsense")), "cid_invalid"),
        (field(2, field(1, bytes(LINK.cid)) + field(2, bytes(1025))), "dag_node_malformed"),
        (encode_node([LINK] * (LINKS_MAX + 1), b""), "dag_too_wide"),
    ],
)
def test_a_malformed_node_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        decode_node(data)


@pytest.mark.parametrize(
    ("links", "data", "reason"),
    [
        (0, b"", "document_not_a_file"),
        (0, DIRECTORY, "document_not_a_file"),
        (0, b"\x08\x05", "document_not_a_file"),  # a sharded directory
        (0, b"\x08\x02\x18\x01", "unixfs_malformed"),  # a size without content
        (0, b"\x08\x02\x08\x02", "unixfs_malformed"),
        (0, b"\x18\x00\x08\x02", "unixfs_malformed"),
        (0, b"\x08\x02\x48\x01", "unixfs_malformed"),  # a field nobody knows
        (1, b"\x08\x02\x18\x01", "unixfs_malformed"),  # a link without a size
        (0, b"\x08\x02\x18\x01\x20\x01", "unixfs_malformed"),  # a size without a link
        (1, b"\x08\x02\x18\x00\x20\x00", "unixfs_malformed"),  # an empty part: a tree without end in no bytes
        (2, b"\x08\x02\x18\x05\x20\x01\x20\x02", "unixfs_malformed"),  # the sum is wrong
    ],
)
def test_a_node_that_is_no_file_or_whose_sizes_lie_is_refused(links: int, data: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        decode_file(decode_node(encode_node([LINK] * links, data)))
