"""Contents for the tests of documents: the reference vectors where they are at hand, and streams made of nothing."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from node.documents.chunking import Layout, build_blocks
from node.documents.cid import Block

VECTORS: Final = Path(__file__).resolve().parents[4] / "shared" / "data" / "cid"
SIZE_MAX: Final = 1 << 40


def load_vectors(name: str) -> object:
    """A file of reference vectors; skips the test where the collection is absent."""
    if not (VECTORS / name).exists():
        pytest.skip("the reference vectors are not at hand")
    value: object = json.loads((VECTORS / name).read_text())
    return value


def make_content(size: int, seed: str = "unixfs-a") -> bytes:
    """The same bytes for the same seed, as the reference vectors define them."""
    return hashlib.shake_128(seed.encode()).digest(size)


def make_blocks(content: bytes) -> list[Block]:
    return list(build_blocks(io.BytesIO(content), size_max=SIZE_MAX))


def get_text(item: Mapping[str, object], key: str) -> str:
    value = item[key]
    assert isinstance(value, str)
    return value


def get_number(item: Mapping[str, object], key: str) -> int:
    value = item[key]
    assert isinstance(value, int)
    return value


def read_layout(item: Mapping[str, object]) -> Layout:
    """How a reference vector was made."""
    return Layout(
        chunk_bytes=get_number(item, "chunk_size"),
        links_max=get_number(item, "max_links"),
        raw_leaves=bool(item["raw_leaves"]),
        cid_version=get_number(item, "cid_version"),
    )


def read_content(item: Mapping[str, object]) -> bytes:
    """The content of a reference vector; skips the test where its file is absent."""
    if "utf8" in item:
        return get_text(item, "utf8").encode()
    if "shake128" in item:
        return make_content(get_number(item, "size"), get_text(item, "shake128"))
    path = VECTORS.parent / get_text(item, "file")
    if not path.exists():
        pytest.skip(f"{path.name} is not at hand")
    return path.read_bytes()


class Pattern:
    """A stream of ``size`` bytes that holds none of them, in pieces of odd sizes."""

    def __init__(self, size: int, *, piece_max: int = 100_003) -> None:
        self._left = size
        self._piece_max = piece_max

    def read(self, size: int, /) -> bytes:
        count = min(size, self._left, self._piece_max)
        self._left -= count
        return bytes(count)
