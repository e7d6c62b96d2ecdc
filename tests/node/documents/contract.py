"""What every document store promises, as tests that run on each: a test class of a store inherits them.

The class that inherits says how an empty store is made.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TypeAlias, cast

import pytest

from ledger.errors import Malformed, RuleViolated
from node.documents.chunking import LAYOUT, Layout, build_blocks
from node.documents.cid import DAG_PB, RAW, Block, Cid, compute_cid, format_cid
from node.documents.embedded import EmbeddedStore
from node.documents.store import DocumentStore, StoreFailed, migrate
from node.documents.unixfs import encode_node
from tests.node.documents.samples import load_vectors, make_blocks, make_content, read_content, read_layout

SIZES = (0, 1, 262_143, 262_144, 262_145, 600_000)
BLOCKS_MAX = 200
WIDE = 262_144 * 174 + 1  # the first size with three tiers


Factory: TypeAlias = Callable[[], DocumentStore]  # gives the one store of a test, empty at first


def put(store: DocumentStore, content: bytes) -> str:
    return format_cid(store.put(io.BytesIO(content), size_max=len(content)))


class StoreContract:
    """The promises. ``make_store`` is a fixture of the class that inherits."""

    @pytest.mark.parametrize("size", SIZES)
    def test_what_was_put_is_read_back_under_the_cid_of_its_content(self, make_store: Factory, size: int) -> None:
        store, content = make_store(), make_content(size)
        cid = store.put(io.BytesIO(content), size_max=size)
        assert cid == make_blocks(content)[-1].cid
        assert b"".join(store.open(cid)) == content
        assert next(block.cid for block in store.open_blocks(cid)) == cid
        assert store.has(cid)
        assert store.list_pins() == [cid]

    def test_every_reference_vector_of_our_layout_is_put_under_its_cid_and_read_back(self, make_store: Factory) -> None:
        store = make_store()
        vectors = cast("list[dict[str, object]]", load_vectors("files.json"))
        ours = [item for item in vectors if read_layout(item) == LAYOUT]
        assert len(ours) == 22
        for item in ours:
            content = read_content(item)
            cid = store.put(io.BytesIO(content), size_max=len(content))
            assert format_cid(cid) == item["cid"]
            assert b"".join(store.open(cid)) == content

    def test_every_reference_vector_of_another_layout_is_kept_and_read_under_its_cid(self, make_store: Factory) -> None:
        """What other programs made: leaves in dag-pb, larger chunks, narrower and wider trees."""
        store = make_store()
        vectors = cast("list[dict[str, object]]", load_vectors("files.json"))
        others = [item for item in vectors if read_layout(item).cid_version == 1 and read_layout(item) != LAYOUT]
        assert len(others) > 20
        for item in others:
            content, layout = read_content(item), read_layout(item)
            if len(content) > BLOCKS_MAX * layout.chunk_bytes:
                continue  # two files of 30,000 blocks of 64 bytes; test_cid.py has their CIDs
            blocks = list(build_blocks(io.BytesIO(content), size_max=len(content), layout=layout))
            assert format_cid(blocks[-1].cid) == item["cid"]
            store.put_blocks(blocks[-1].cid, blocks)
            assert b"".join(store.open(blocks[-1].cid)) == content

    def test_a_root_of_version_0_is_refused_and_the_store_is_well(self, make_store: Factory) -> None:
        store, layout = make_store(), Layout(raw_leaves=False, cid_version=0)
        blocks = list(build_blocks(io.BytesIO(b"hello world"), size_max=11, layout=layout))
        for call in (lambda cid: store.put_blocks(cid, blocks), store.pin):
            with pytest.raises(Malformed, match="cid_invalid: Qmf412jQZiuVUtdgnB36FXFX7xg5V6KEbSJ4dpQuhkLyfD"):
                call(blocks[-1].cid)
        assert store.list_pins() == []
        # The same blocks under a root of version 1 are a document, links of version 0 and all.
        store.put_blocks(
            Cid(DAG_PB, blocks[-1].cid.digest), [Block(Cid(DAG_PB, one.cid.digest), one.data) for one in blocks]
        )
        assert len(store.list_pins()) == 1

    def test_a_document_of_three_tiers_is_read_back(self, make_store: Factory) -> None:
        store, content = make_store(), bytes(WIDE)
        cid = store.put(io.BytesIO(content), size_max=WIDE)
        assert format_cid(cid) == format_cid(make_blocks(content)[-1].cid)
        assert sum(len(piece) for piece in store.open(cid)) == WIDE

    def test_a_document_over_the_limit_is_refused_and_nothing_is_kept_of_it(self, make_store: Factory) -> None:
        store = make_store()
        with pytest.raises(RuleViolated, match="document_too_large"):
            store.put(io.BytesIO(make_content(300_000)), size_max=299_999)
        assert store.list_pins() == []
        store.collect_garbage()
        assert not store.has(make_blocks(make_content(262_144))[0].cid)

    def test_reading_stops_before_the_first_byte_over_the_limit(self, make_store: Factory) -> None:
        store = make_store()
        cid = store.put(io.BytesIO(make_content(300_000)), size_max=300_000)
        with pytest.raises(RuleViolated, match="document_too_large"):
            list(store.open(cid, size_max=299_999))

    def test_what_is_absent_is_said_to_be(self, make_store: Factory) -> None:
        store, absent = make_store(), compute_cid(RAW, b"never stored")
        assert not store.has(absent)
        with pytest.raises(StoreFailed, match="block_absent"):
            list(store.open(absent))
        with pytest.raises(StoreFailed, match="block_absent"):
            store.pin(absent)
        with pytest.raises(StoreFailed, match="pin_absent"):
            store.unpin(absent)

    def test_garbage_collection_takes_what_is_not_pinned_and_nothing_else(self, make_store: Factory) -> None:
        store = make_store()
        kept, lost = make_content(600_000, "kept"), make_content(600_000, "lost")
        kept_cid = store.put(io.BytesIO(kept), size_max=len(kept))
        lost_cid = store.put(io.BytesIO(lost), size_max=len(lost))
        store.unpin(lost_cid)
        assert b"".join(store.open(lost_cid)) == lost
        assert store.collect_garbage() >= 4
        assert not store.has(lost_cid)
        assert store.list_pins() == [kept_cid]
        assert b"".join(store.open(kept_cid)) == kept

    def test_a_block_that_two_documents_share_stays_with_the_second(self, make_store: Factory) -> None:
        store, shared = make_store(), make_content(262_144)
        first = store.put(io.BytesIO(shared), size_max=300_000)
        second = store.put(io.BytesIO(shared + b"more"), size_max=300_000)
        store.unpin(first)
        store.collect_garbage()
        assert b"".join(store.open(second)) == shared + b"more"

    def test_what_was_unpinned_can_be_pinned_again(self, make_store: Factory) -> None:
        store, content = make_store(), make_content(300_000)
        cid = store.put(io.BytesIO(content), size_max=len(content))
        store.unpin(cid)
        assert store.list_pins() == []
        store.pin(cid)
        store.pin(cid)
        store.collect_garbage()
        assert b"".join(store.open(cid)) == content

    def test_putting_the_same_content_twice_is_putting_it_once(self, make_store: Factory) -> None:
        store, content = make_store(), make_content(300_000)
        assert put(store, content) == put(store, content)
        assert len(store.list_pins()) == 1

    def test_a_document_moves_to_the_other_kind_of_store_and_back_under_its_cid(
        self, make_store: Factory, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        store, other = make_store(), EmbeddedStore(tmp_path_factory.mktemp("other"))
        cids = {put(store, make_content(size)) for size in SIZES}
        moved: list[str] = []
        assert migrate(store, other, report=lambda cid: moved.append(format_cid(cid))) == len(SIZES)
        assert set(moved) == cids
        assert {format_cid(cid) for cid in other.list_pins()} == cids
        for cid in store.list_pins():
            store.unpin(cid)
        store.collect_garbage()
        migrate(other, store, report=lambda _: None)
        migrate(other, store, report=lambda _: None)
        assert [b"".join(store.open(cid)) for cid in store.list_pins()] == [
            b"".join(other.open(cid)) for cid in other.list_pins()
        ]

    def test_blocks_that_do_not_hash_to_their_names_are_refused(self, make_store: Factory) -> None:
        store = make_store()
        leaf, *_, root = make_blocks(make_content(300_000))
        with pytest.raises(StoreFailed, match="block_hash_wrong"):
            store.put_blocks(root.cid, [Block(leaf.cid, leaf.data + b"x"), root])
        assert store.list_pins() == []

    def test_blocks_of_which_one_is_missing_make_no_document(self, make_store: Factory) -> None:
        store = make_store()
        _, *rest = make_blocks(make_content(600_000))
        with pytest.raises(StoreFailed, match="block_absent"):
            store.put_blocks(rest[-1].cid, rest)
        assert store.list_pins() == []

    def test_blocks_of_a_directory_make_no_document(self, make_store: Factory) -> None:
        store = make_store()
        data = encode_node([], b"\x08\x01")
        root = Block(compute_cid(DAG_PB, data), data)
        with pytest.raises(Malformed, match="document_not_a_file"):
            store.put_blocks(root.cid, [root])

    def test_a_healthy_store_says_what_it_holds(self, make_store: Factory) -> None:
        store = make_store()
        put(store, make_content(300_000))
        health = store.health()
        assert health.pins == 1
        assert health.version
        assert health.bytes_stored >= 0
