"""Trees and archives from strangers: content comes out only when every block, size and limit is right."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable
from typing import cast

import pytest

from ledger.errors import Malformed, Rejected, RuleViolated
from node.documents import reading
from node.documents.car import encode_block, encode_header, read_car
from node.documents.chunking import Layout, build_blocks
from node.documents.cid import BLOCK_BYTES_MAX, DAG_PB, RAW, Block, Cid, compute_cid, encode_varint, format_cid
from node.documents.reading import DEPTH_MAX, find_digests, walk
from node.documents.store import StoreFailed
from node.documents.unixfs import LINKS_MAX, Link, encode_file, encode_node
from tests.node.documents.samples import SIZE_MAX, VECTORS, load_vectors, make_blocks, make_content

NARROW = Layout(chunk_bytes=10, links_max=3)
CHANGES: list[Callable[[bytes], bytes]] = [
    lambda data: data[:-1],
    lambda data: data + b"x",
    lambda data: bytes([data[0] ^ 1]) + data[1:],
]


class Shelf:
    """Blocks by digest."""

    def __init__(self, blocks: Iterable[Block] = ()) -> None:
        self.blocks = {block.cid.digest: block.data for block in blocks}

    def get(self, cid: Cid) -> bytes:
        if cid.digest not in self.blocks:
            raise StoreFailed("block_absent", cid)
        return self.blocks[cid.digest]

    def add_node(self, links: list[Link], *, content: bytes = b"", part_sizes: tuple[int, ...]) -> Cid:
        data = encode_node(links, encode_file(content=content, part_sizes=part_sizes))
        cid = compute_cid(DAG_PB, data)
        self.blocks[cid.digest] = data
        return cid

    def add_leaf(self, data: bytes) -> Cid:
        cid = compute_cid(RAW, data)
        self.blocks[cid.digest] = data
        return cid

    def read(self, root: Cid, *, size_max: int = SIZE_MAX) -> bytes:
        return b"".join(visit.content for visit in walk(self.get, root, size_max=size_max))


def link(cid: Cid) -> Link:
    return Link(cid, b"", 0)


@pytest.mark.parametrize("layout", [NARROW, Layout(10, 3, raw_leaves=False), Layout(10, 3, False, 0), Layout(1, 2)])
@pytest.mark.parametrize("size", [0, 1, 10, 11, 30, 31, 90, 91, 200])
def test_whatever_the_layout_the_content_comes_back(layout: Layout, size: int) -> None:
    content = make_content(size)
    blocks = list(build_blocks(io.BytesIO(content), size_max=size, layout=layout))
    shelf = Shelf(blocks)
    assert shelf.read(blocks[-1].cid) == content
    assert {visit.block.cid.digest for visit in walk(shelf.get, blocks[-1].cid, size_max=size)} == set(shelf.blocks)
    assert set(find_digests(shelf.get, blocks[-1].cid)) == set(shelf.blocks)


def test_content_between_the_links_of_a_node_comes_first() -> None:
    shelf = Shelf()
    root = shelf.add_node([link(shelf.add_leaf(b"second"))], content=b"first ", part_sizes=(6,))
    assert shelf.read(root) == b"first second"


def test_no_piece_of_an_altered_block_is_given_wherever_it_is() -> None:
    blocks = list(build_blocks(io.BytesIO(make_content(200)), size_max=200, layout=NARROW))
    for victim in {block.cid.digest for block in blocks}:
        for change in CHANGES:
            shelf = Shelf(blocks)
            shelf.blocks[victim] = change(shelf.blocks[victim])
            given: list[bytes] = []
            with pytest.raises(StoreFailed, match="block_hash_wrong"):
                given.extend(visit.content for visit in walk(shelf.get, blocks[-1].cid, size_max=200))
            assert make_content(200).startswith(b"".join(given))


def test_a_missing_block_is_named() -> None:
    blocks = make_blocks(make_content(300_000))
    shelf = Shelf(blocks[1:])
    with pytest.raises(StoreFailed, match=f"block_absent: {blocks[0].cid}"):
        shelf.read(blocks[-1].cid)


def test_a_document_over_the_limit_is_refused_before_its_first_byte() -> None:
    blocks = make_blocks(make_content(300_000))
    pieces = walk(Shelf(blocks).get, blocks[-1].cid, size_max=299_999)
    with pytest.raises(RuleViolated, match="document_too_large: 300000 bytes"):
        next(pieces)
    assert Shelf(blocks).read(blocks[-1].cid, size_max=300_000) == make_content(300_000)


@pytest.mark.parametrize("declared", [4, 6])
def test_a_part_of_another_size_than_declared_is_refused(declared: int) -> None:
    shelf = Shelf()
    root = shelf.add_node([link(shelf.add_leaf(b"12345"))], part_sizes=(declared,))
    with pytest.raises(Malformed, match="unixfs_malformed"):
        shelf.read(root)


def test_a_tree_as_deep_as_allowed_is_read_and_a_deeper_one_refused() -> None:
    shelf = Shelf()
    top = shelf.add_leaf(b"deep")
    for _ in range(DEPTH_MAX):
        top = shelf.add_node([link(top)], part_sizes=(4,))
    assert shelf.read(top) == b"deep"
    deeper = shelf.add_node([link(top)], part_sizes=(4,))
    with pytest.raises(Malformed, match="dag_too_deep"):
        shelf.read(deeper)
    beyond = shelf.add_node([link(deeper)], part_sizes=(4,))
    with pytest.raises(Malformed, match="dag_too_deep"):
        list(find_digests(shelf.get, beyond))


def test_a_tree_wider_than_allowed_is_refused() -> None:
    shelf = Shelf()
    links = [link(shelf.add_leaf(b"a"))] * (LINKS_MAX + 1)
    with pytest.raises(Malformed, match="dag_too_wide"):
        shelf.read(shelf.add_node(links, part_sizes=(1,) * (LINKS_MAX + 1)))


def test_few_blocks_that_repeat_into_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCKS_MAX", 500)
    shelf = Shelf()
    top, size = shelf.add_leaf(b"a"), 1
    for _ in range(3):
        top, size = shelf.add_node([link(top)] * 100, part_sizes=(size,) * 100), size * 100
    with pytest.raises(Malformed, match="dag_too_large"):
        shelf.read(top)
    with pytest.raises(Malformed, match="dag_too_large"):
        list(find_digests(shelf.get, top))


def test_a_block_over_the_limit_is_refused_even_if_it_hashes_right() -> None:
    shelf = Shelf()
    assert len(shelf.read(shelf.add_leaf(bytes(BLOCK_BYTES_MAX)))) == BLOCK_BYTES_MAX
    with pytest.raises(StoreFailed, match="block_too_large"):
        shelf.read(shelf.add_leaf(bytes(BLOCK_BYTES_MAX + 1)))


def test_a_directory_is_no_document() -> None:
    data = encode_node([], b"\x08\x01")
    cid = compute_cid(DAG_PB, data)
    with pytest.raises(Malformed, match="document_not_a_file"):
        Shelf([Block(cid, data)]).read(cid)


def test_an_archive_is_read_back_with_its_root_and_blocks() -> None:
    blocks = make_blocks(make_content(600_000))
    archive = encode_header(blocks[-1].cid) + b"".join(encode_block(block) for block in blocks)
    car = read_car(io.BytesIO(archive))
    assert car.roots == (blocks[-1].cid,)
    assert list(car.blocks) == blocks


def test_the_archive_of_kubos_own_tests_is_read() -> None:
    listed = cast("dict[str, list[dict[str, object]]]", load_vectors("car.json"))["dir_listing.car"]
    with (VECTORS / "dir_listing.car").open("rb") as file:
        car = read_car(file)
        blocks = list(car.blocks)
    assert [(format_cid(block.cid), len(block.data)) for block in blocks] == [
        (item["cid"], item["length"]) for item in listed
    ]
    assert car.roots == (blocks[0].cid,)
    shelf = Shelf(blocks)
    texts = [shelf.read(block.cid) for block in blocks if block.cid.codec == RAW]
    assert len(texts) == 4
    assert all(texts)


def test_an_archive_cut_anywhere_is_refused_or_ends_between_two_blocks() -> None:
    blocks = list(build_blocks(io.BytesIO(make_content(25)), size_max=25, layout=NARROW))
    archive = encode_header(blocks[-1].cid)
    ends = [len(archive)]
    for block in blocks:
        archive += encode_block(block)
        ends.append(len(archive))
    for cut in range(len(archive)):
        if cut in ends:
            assert list(read_car(io.BytesIO(archive[:cut])).blocks) == blocks[: ends.index(cut)]
        else:
            with pytest.raises(Malformed, match=re.escape("car_malformed")):
                list(read_car(io.BytesIO(archive[:cut])).blocks)


def test_an_archive_with_any_bit_flipped_gives_no_wrong_block() -> None:
    blocks = list(build_blocks(io.BytesIO(make_content(25)), size_max=25, layout=NARROW))
    archive = encode_header(blocks[-1].cid) + b"".join(encode_block(block) for block in blocks)
    for position in range(len(archive)):
        altered = bytearray(archive)
        altered[position] ^= 1 << position % 8
        read: list[Block] = []
        try:
            car = read_car(io.BytesIO(altered))
            read.extend(car.blocks)
        except (Rejected, StoreFailed):
            pass
        else:  # only the codec of a name, or the root's name, is left to flip
            assert car.roots != (blocks[-1].cid,) or [block.cid for block in read] != [block.cid for block in blocks]
        assert all(block.data in {known.data for known in blocks} for block in read)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x0a\xa1gversion\x02",  # the beginning of version 2
        b"\x01\xa2",
        encode_varint(5_000) + bytes(5_000),
        b"\xff" * 12,
        b"\x00",
        encode_varint(16) + b"\xa2\x65roots\xff\x67version",
    ],
)
def test_what_is_no_archive_is_refused(head: bytes) -> None:
    with pytest.raises(Malformed, match="car_malformed"):
        read_car(io.BytesIO(head))


def test_a_section_that_claims_to_be_huge_is_refused_unread() -> None:
    archive = encode_header(compute_cid(RAW, b"")) + encode_varint(1 << 50)
    with pytest.raises(Malformed, match="car_malformed"):
        list(read_car(io.BytesIO(archive)).blocks)
