"""Encryption: constant memory, nothing published that is not whole, and a key that opens for its reader only."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ledger.errors import Malformed, RuleViolated
from ledger.primitives import Address
from node.documents.encryption import (
    HEADER_BYTES_MAX,
    PieceReader,
    ProgressReader,
    decrypt_to,
    encrypt,
    encrypt_to,
    make_key,
)
from node.documents.files import FileFailed
from node.documents.grants import (
    GRANT_BYTES,
    Commitment,
    DocumentKey,
    GrantPlace,
    check_encryption_key,
    compute_public_key,
    derive_salt,
    format_identity,
    open_grant,
    parse_identity,
    seal_grant,
)
from tests.node.documents.samples import Pattern, make_content

KEY, OTHER_KEY = (DocumentKey(hashlib.sha256(name).digest()) for name in (b"document", b"another"))
READER, STRANGER = (hashlib.sha256(name).digest() for name in (b"reader", b"stranger"))
PLACE = GrantPlace("wattprint-test", hashlib.sha256(b"id").digest(), Address(bytes(range(20))))
CHUNK = 65_536  # of the age format
SIZES = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 300_000)


def encrypt_bytes(content: bytes, key: DocumentKey = KEY) -> bytes:
    target = io.BytesIO()
    encrypt(io.BytesIO(content), target, key)
    return target.getvalue()


def decrypt_file(path: Path, data: bytes, key: DocumentKey = KEY, *, size_max: int = 1 << 30) -> None:
    decrypt_to(path, io.BytesIO(data), key, size_max=size_max, commitment=None)


@pytest.mark.parametrize("size", SIZES)
def test_what_was_encrypted_comes_back_and_its_commitment_fits(tmp_path: Path, size: int) -> None:
    content = make_content(size)
    commitment = encrypt_to(tmp_path / "sealed", io.BytesIO(content), KEY)
    with (tmp_path / "sealed").open("rb") as file:
        decrypt_to(tmp_path / "plain", file, KEY, size_max=size, commitment=commitment)
    assert (tmp_path / "plain").read_bytes() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain", "sealed"]
    assert (tmp_path / "plain").stat().st_mode & 0o777 == 0o600


def test_the_same_content_never_looks_the_same_twice() -> None:
    assert encrypt_bytes(b"a") != encrypt_bytes(b"a")
    assert make_key() != make_key()


@pytest.mark.parametrize("size", [0, 100, 2 * CHUNK, 2 * CHUNK + 100])
def test_cut_anywhere_nothing_is_published(tmp_path: Path, size: int) -> None:
    data = encrypt_bytes(make_content(size))
    head = data.index(b"\n---") + 4
    cuts = {*range(0, head, 7), *range(head, len(data), max(1, len(data) // 60)), len(data) - 1, len(data) - 16}
    cuts |= {len(data) - 100 - 16, len(data) - CHUNK - 16, len(data) - 100 - 32} & set(range(len(data)))
    for cut in cuts:
        with pytest.raises(Malformed, match="content_not_decrypted"):
            decrypt_file(tmp_path / "plain", data[:cut])
        assert list(tmp_path.iterdir()) == []


def test_with_any_bit_flipped_nothing_is_published(tmp_path: Path) -> None:
    content = make_content(CHUNK + 200)
    data = encrypt_bytes(content)
    positions = [*range(data.index(b"\n---") + 60), *range(400, len(data), 3001), *range(len(data) - 230, len(data))]
    for position in positions:
        altered = bytearray(data)
        altered[position] ^= 1 << position % 8
        with pytest.raises(Malformed, match="content_not_decrypted"):
            decrypt_file(tmp_path / "plain", bytes(altered))
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"x",
        lambda data: data + data,
        lambda data: data[: -CHUNK - 16] + data[-100:],
        lambda _: b"plain text, never encrypted",
    ],
)
def test_content_put_together_from_pieces_is_not_published(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(Malformed, match="content_not_decrypted"):
        decrypt_file(tmp_path / "plain", change(encrypt_bytes(make_content(3 * CHUNK))))
    assert list(tmp_path.iterdir()) == []


def test_another_key_opens_nothing(tmp_path: Path) -> None:
    with pytest.raises(Malformed, match="content_not_decrypted"):
        decrypt_file(tmp_path / "plain", encrypt_bytes(b"secret"), OTHER_KEY)
    assert list(tmp_path.iterdir()) == []


def test_content_that_the_ledger_was_not_told_of_is_not_published(tmp_path: Path) -> None:
    commitment = encrypt(io.BytesIO(b"agreed"), io.BytesIO(), KEY)
    with pytest.raises(Malformed, match="content_not_committed"):
        decrypt_to(tmp_path / "plain", io.BytesIO(encrypt_bytes(b"other")), KEY, size_max=100, commitment=commitment)
    assert list(tmp_path.iterdir()) == []


def test_content_over_the_limit_is_not_published(tmp_path: Path) -> None:
    data = encrypt_bytes(make_content(200_000))
    with pytest.raises(RuleViolated, match="document_too_large"):
        decrypt_file(tmp_path / "plain", data, size_max=199_999)
    assert list(tmp_path.iterdir()) == []
    decrypt_file(tmp_path / "plain", data, size_max=200_000)


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"mine")
    with pytest.raises(FileFailed, match=r"file_exists: .*/plain: it is not replaced"):
        decrypt_file(tmp_path / "plain", encrypt_bytes(b"theirs"))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]


class FullDisk:
    """Takes so many bytes, then no more."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, data: bytes, /) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(28, "No space left on device")
        return len(data)


def test_a_target_that_fails_at_any_byte_is_never_taken_for_whole() -> None:
    content = make_content(100_000)
    whole = len(encrypt_bytes(content))
    for room in (*range(0, whole - 2_000, 9_973), *range(whole - 2_000, whole - 1_000, 97)):
        with pytest.raises(OSError, match="No space left"):
            encrypt(io.BytesIO(content), FullDisk(room), KEY)


def test_a_target_that_takes_less_than_it_was_given_is_never_taken_for_whole() -> None:
    class Short:
        def write(self, data: bytes, /) -> int:
            return len(data) // 2

    with pytest.raises(OSError, match="bytes were written"):
        encrypt(io.BytesIO(b"content"), Short(), KEY)


def test_what_the_source_raises_is_what_the_caller_gets(tmp_path: Path) -> None:
    def break_off(*pieces: bytes) -> Iterator[bytes]:
        yield from pieces
        raise Malformed("dag_too_deep")

    data = encrypt_bytes(make_content(200_000))
    broken = PieceReader(break_off(data[:1000], data[1000:100_000]))
    with pytest.raises(Malformed, match="dag_too_deep"):
        decrypt_to(tmp_path / "plain", broken, KEY, size_max=1 << 30, commitment=None)
    with pytest.raises(Malformed, match="dag_too_deep"):
        encrypt_to(tmp_path / "sealed", PieceReader(break_off()), KEY)
    assert list(tmp_path.iterdir()) == []


def test_thirty_megabytes_pass_in_constant_memory_and_progress_is_told(tmp_path: Path) -> None:
    told: list[int] = []
    tracemalloc.start()
    encrypt_to(tmp_path / "sealed", ProgressReader(Pattern(30_000_000), told.append), KEY)
    with (tmp_path / "sealed").open("rb") as file:
        pieces = iter(lambda: file.read(262_144), b"")
        decrypt_to(tmp_path / "plain", PieceReader(pieces), KEY, size_max=30_000_000, commitment=None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "plain").stat().st_size == 30_000_000
    assert told == sorted(told)
    assert told[-1] == 30_000_000
    assert peak < 4_000_000


def test_a_grant_gives_its_reader_the_key() -> None:
    sealed = seal_grant(KEY, compute_public_key(READER), PLACE)
    assert len(sealed) == GRANT_BYTES == 80
    assert open_grant(sealed, READER, PLACE) == KEY
    assert sealed != seal_grant(KEY, compute_public_key(READER), PLACE)


def test_a_grant_opens_for_nobody_else_and_nowhere_else() -> None:
    sealed = seal_grant(KEY, compute_public_key(READER), PLACE)
    places = [
        replace(PLACE, chain_id="wattprint-tesu"),
        replace(PLACE, document_id=hashlib.sha256(b"other").digest()),
        replace(PLACE, reader=Address(bytes(20))),
    ]
    for private, place in [(STRANGER, PLACE), *((READER, place) for place in places)]:
        with pytest.raises(Malformed, match="grant_not_opened"):
            open_grant(sealed, private, place)


def test_a_grant_altered_or_cut_anywhere_does_not_open() -> None:
    sealed = seal_grant(KEY, compute_public_key(READER), PLACE)
    # The top bit of an X25519 key means nothing to the curve, but HPKE hashes it: flipped, it opens nothing either.
    altered = [sealed[:i] + bytes([sealed[i] ^ 1 << bit]) + sealed[i + 1 :] for i in range(80) for bit in (0, 7)]
    for data in [*altered, *(sealed[:cut] for cut in range(80)), sealed + b"\0", bytes(80)]:
        with pytest.raises(Malformed, match="grant_not_opened"):
            open_grant(data, READER, PLACE)


@pytest.mark.parametrize(
    "public",
    [b"", bytes(31), bytes(32), bytes([1]) + bytes(31), bytes(33), bytes.fromhex("ecff" + "ff" * 29 + "7f")],
)
def test_nothing_is_sealed_to_a_key_that_anyone_could_open(public: bytes) -> None:
    with pytest.raises(Malformed, match="encryption_key_invalid"):
        check_encryption_key(public)
    check_encryption_key(compute_public_key(READER))


def test_a_key_is_written_as_the_age_command_reads_it() -> None:
    text = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"  # 32 times 0x42, of age's tests
    assert format_identity(DocumentKey(b"\x42" * 32)) == text
    assert parse_identity(text) == b"\x42" * 32
    for wrong in ("", text[:-1], text + "X", text.lower(), text[:-1] + "Q", text.replace("GFP", "GFB"), "x" * 74):
        with pytest.raises(Malformed, match=r"^identity_invalid$"):
            parse_identity(wrong)


def test_a_commitment_depends_on_every_bit_of_content_and_on_the_key() -> None:
    def commit(content: bytes, key: DocumentKey) -> bytes:
        commitment = Commitment(derive_salt(key))
        commitment.update(content)
        return commitment.compute()

    found = {commit(content, key) for content in (b"", b"a", b"b", b"ab") for key in (KEY, OTHER_KEY)}
    assert len(found) == 8
    assert found.isdisjoint(hashlib.sha256(content).digest() for content in (b"", b"a", b"b", b"ab"))


@pytest.mark.parametrize("stanza", [b"-> g a\n\n", b"-> g" + b" a" * 30 + b"\n\n", b"A" * 64 + b"\n"])
def test_a_header_that_goes_on_and_on_is_not_read_on(tmp_path: Path, stanza: bytes) -> None:
    """The library reads it anew for each line: a header of 32 KB took it eight seconds."""
    source = io.BytesIO(b"age-encryption.org/v1\n" + stanza * 100_000)
    with pytest.raises(Malformed, match="content_not_decrypted: no header of at most 4096 bytes"):
        decrypt_to(tmp_path / "plain", source, KEY, size_max=1, commitment=None)
    assert source.tell() == HEADER_BYTES_MAX
    assert list(tmp_path.iterdir()) == []


def test_a_stream_that_gives_byte_after_byte_is_decrypted(tmp_path: Path) -> None:
    sealed = encrypt_bytes(b"secret")
    source = PieceReader(sealed[at : at + 1] for at in range(len(sealed)))
    decrypt_to(tmp_path / "plain", source, KEY, size_max=6, commitment=None)
    assert (tmp_path / "plain").read_bytes() == b"secret"
