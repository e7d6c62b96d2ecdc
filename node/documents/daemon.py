"""A store behind the API of an IPFS daemon, which is not trusted: what it says is checked, what it sends is hashed.

Documents go in as an archive of blocks that were made here, so their CIDs are ours, and are read back before a put
returns. They come out block by block. Whatever goes wrong is one of a few errors, within a deadline.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

import requests
from ipfshttpclient import exceptions as client_errors
from ipfshttpclient.client.base import ResponseBase
from urllib3.exceptions import HTTPError

from ledger.errors import Malformed, RuleViolated
from node.documents.car import encode_block, encode_header
from node.documents.chunking import build_blocks
from node.documents.cid import BLOCK_BYTES_MAX, DIGEST_BYTES, RAW, Block, Cid, Digest, parse_any_base
from node.documents.reading import TREE_BYTES_MAX, Visit, check_block, read_verified, walk
from node.documents.store import ABSENT, DOCUMENT_BYTES_MAX, Readable, StoreFailed, StoreHealth, check_root
from node.documents.wire import Budget, Connections, GuardedClient, spend
from node.errors import get_disk_reason

T = TypeVar("T")

ATTEMPTS_MAX: Final = 2  # of a call that found no connection, or lost it; every call here may be made twice
HEADERS_BYTES_MAX: Final = 64 * 1024
ANSWER_BYTES_MAX: Final = 256 * 1024  # of an answer about one document
LIST_BYTES_MAX: Final = 256 * 1024 * 1024  # of an answer about all documents: a million pins or removed blocks
MESSAGE_LENGTH_MAX: Final = 300  # of a daemon's words in our errors
VERSION_MIN: Final = (0, 5)  # the first to import archives
_SIZE_FORM: Final = re.compile(r"\d{1,18}", re.ASCII)
_VERSION_FORM: Final = re.compile(r"(\d{1,4})\.(\d{1,4})[\w.+-]{0,60}", re.ASCII)


@dataclass(frozen=True, slots=True)
class CallLimits:
    """How long a daemon may take, in milliseconds."""

    call_ms: int = 10_000  # one question, one block
    # What we ask the daemon to give up after, where it would search for ever. js-ipfs calls absent what a busy moment
    # kept it from finding within this time.
    lookup_ms: int = 6_000
    transfer_ms: int = 30_000  # a whole document, on top of what its size allows
    transfer_bytes_per_ms: int = 256  # the slowest transfer that is not given up
    collect_ms: int = 600_000  # a garbage collection

    def compute_transfer_ms(self, size: int) -> int:
        return self.transfer_ms + size // self.transfer_bytes_per_ms


def read_clock_ms() -> int:
    """A clock that only goes forward."""
    return time.monotonic_ns() // 1_000_000


class DaemonStore:
    """A ``DocumentStore`` at a multiaddress such as ``/ip4/127.0.0.1/tcp/5001``. Threads may share it."""

    def __init__(
        self,
        address: str,
        *,
        spool_directory: Path | None = None,
        limits: CallLimits | None = None,
        now_ms: Callable[[], int] = read_clock_ms,
    ) -> None:
        self._limits = limits or CallLimits()
        self._spool_directory = spool_directory
        self._now_ms = now_ms
        self._address = address
        self._connections = Connections()
        try:
            self._client = GuardedClient(address)
        except client_errors.AddressError:
            raise StoreFailed("store_address_invalid", ascii(address)) from None

    def close(self) -> None:
        """Ends what waits for the daemon, and gives back the connections."""
        self._connections.end()
        self._client.close()

    def put(self, stream: Readable, *, size_max: int) -> Cid:
        with self._spool() as spool:
            for block in build_blocks(stream, size_max=size_max):
                spool.add(block)
            self._import(spool, block.cid, size_max=size_max)
        return block.cid

    def put_blocks(self, root: Cid, blocks: Iterable[Block], *, size_max: int = DOCUMENT_BYTES_MAX) -> None:
        check_root(root)
        with self._spool() as spool:
            for block in blocks:
                spool.add(check_block(block.cid, block.data))
                if spool.size > size_max + TREE_BYTES_MAX:
                    raise RuleViolated("document_too_large", f"more than {size_max} bytes")
            for _ in walk(spool.get, root, size_max=size_max):
                pass  # a daemon that were to pin a tree with a hole would search for ever
            self._import(spool, root, size_max=size_max)

    def open(self, cid: Cid, *, size_max: int = DOCUMENT_BYTES_MAX) -> Iterator[bytes]:
        return (visit.content for visit in self._walk(cid, size_max=size_max) if visit.content)

    def open_blocks(self, cid: Cid, *, size_max: int = DOCUMENT_BYTES_MAX) -> Iterator[Block]:
        return (visit.block for visit in self._walk(cid, size_max=size_max))

    def has(self, cid: Cid) -> bool:
        try:
            read_verified(lambda wanted: self._read_block(wanted, self._limits.call_ms), cid)
        except StoreFailed as error:
            if error.reason in ABSENT:
                return False
            raise
        return True

    def pin(self, cid: Cid) -> None:
        check_root(cid)
        self._check_whole(cid, size_max=DOCUMENT_BYTES_MAX)
        self._call(lambda seconds: self._client.pin.add(str(cid), opts=self._lookup(), offline=True, timeout=seconds))
        self._check_pinned(cid)

    def unpin(self, cid: Cid) -> None:
        if cid not in self.list_pins():
            raise StoreFailed("pin_absent", cid)
        self._call(lambda seconds: self._client.pin.rm(str(cid), timeout=seconds))

    def list_pins(self) -> list[Cid]:
        """What the daemon pins, and has the form of a document of ours; others may use it for other things."""
        answer = self._call(
            lambda seconds: self._client.pin.ls(type="recursive", timeout=seconds),
            bytes_max=LIST_BYTES_MAX,
        )
        return sorted(_read_pins(answer))

    def collect_garbage(self) -> int:
        """Lets the daemon remove every block that nobody pinned, ours or another's."""

        def collect(seconds: float) -> int:
            answer = self._client.repo.gc(stream=True, timeout=seconds)
            return sum(_is_removed(item) for item in _iterate(answer))

        return self._call(collect, budget_ms=self._limits.collect_ms, bytes_max=LIST_BYTES_MAX)

    def health(self) -> StoreHealth:
        answer = _read_map(self._call(lambda seconds: self._client.version(timeout=seconds)))
        version = answer.get("Version")
        form = _VERSION_FORM.fullmatch(version) if isinstance(version, str) else None
        if not isinstance(version, str) or form is None:
            raise StoreFailed("store_answer_malformed", "the version is no version")
        if (int(form[1]), int(form[2])) < VERSION_MIN:
            raise StoreFailed("store_version_unsupported", version)
        stat = _read_map(
            self._call(lambda seconds: self._client.repo.stat(opts={"size-only": "true"}, timeout=seconds))
        )
        return StoreHealth("daemon", version, len(self.list_pins()), _read_number(stat.get("RepoSize")))

    def _walk(self, cid: Cid, *, size_max: int) -> Iterator[Visit]:
        """Like ``walk``, with one allowance of time for the whole document; the caller's own time is not counted."""
        left_ms = self._limits.transfer_ms

        def get_block(wanted: Cid) -> bytes:
            nonlocal left_ms
            started_ms = self._now_ms()
            data = self._read_block(wanted, min(left_ms, self._limits.call_ms))
            left_ms -= self._now_ms() - started_ms
            if wanted.codec == RAW:
                left_ms += len(data) // self._limits.transfer_bytes_per_ms
            return data

        return walk(get_block, cid, size_max=size_max)

    def _read_block(self, cid: Cid, budget_ms: int) -> bytes:
        try:
            return self._call(
                lambda seconds: self._client.block.get(str(cid), opts=self._lookup(), offline=True, timeout=seconds),
                budget_ms=budget_ms,
                bytes_max=BLOCK_BYTES_MAX,
            )
        except StoreFailed as error:
            if isinstance(error.__cause__, client_errors.ErrorResponse):
                raise StoreFailed("block_absent", f"{cid}: {error.item}") from error
            raise

    def _import(self, spool: _Spool, root: Cid, *, size_max: int) -> None:
        budget_ms = self._limits.compute_transfer_ms(spool.size)

        def send(seconds: float) -> None:
            answer = self._client.dag.imprt(spool.rewind(root), stream=True, timeout=seconds)
            for item in _iterate(answer):
                error = _read_map(_read_map(item).get("Root", {})).get("PinErrorMsg", "")
                if error:
                    raise StoreFailed("store_refused", _quote(error))

        self._call(send, budget_ms=budget_ms)
        self._check_whole(root, size_max=size_max)
        self._check_pinned(root)

    def _check_whole(self, cid: Cid, *, size_max: int) -> None:
        for _ in self._walk(cid, size_max=size_max):
            pass

    def _check_pinned(self, cid: Cid) -> None:
        def ask(seconds: float) -> object:
            return self._client.pin.ls(str(cid), type="recursive", timeout=seconds)

        if cid not in _read_pins(self._call(ask)):
            raise StoreFailed("store_answer_malformed", f"{cid} was to be pinned, and is not")

    def _lookup(self) -> dict[str, str]:
        return {"timeout": f"{self._limits.lookup_ms}ms"}

    def _call(
        self, call: Callable[[float], T], *, budget_ms: int | None = None, bytes_max: int = ANSWER_BYTES_MAX
    ) -> T:
        """Makes a call, again when the connection failed, all within one budget. Raises ``StoreFailed``."""
        deadline_ms = self._now_ms() + (self._limits.call_ms if budget_ms is None else budget_ms)
        for attempt in range(ATTEMPTS_MAX):
            budget = Budget(self._now_ms, deadline_ms, bytes_max + HEADERS_BYTES_MAX, self._connections)
            try:
                with spend(budget):
                    return call(budget.compute_seconds_left())
            except _FAILURES as error:
                failed = self._name_failure(error, budget)
                if failed.reason != "store_unreachable" or attempt == ATTEMPTS_MAX - 1:
                    raise failed from error
        raise AssertionError("the last attempt returns or raises")

    def _name_failure(self, error: Exception, budget: Budget) -> StoreFailed:
        if budget.broken:
            return StoreFailed(budget.broken, self._address)
        match error:
            case client_errors.ErrorResponse() | client_errors.StatusError():
                return StoreFailed("store_refused", f"{self._address}: {_quote(str(error))}")
            case client_errors.TimeoutError() | TimeoutError() | requests.Timeout():
                return StoreFailed("store_timed_out", self._address)
            case client_errors.ConnectionError():
                return StoreFailed("store_unreachable", self._address)
            case client_errors.ProtocolError() if any(isinstance(part, ConnectionError) for part in _get_parts(error)):
                return StoreFailed("store_unreachable", f"{self._address}: the connection was lost")
            case _:
                return StoreFailed("store_answer_malformed", f"{self._address}: {type(error).__name__}")

    @contextmanager
    def _spool(self) -> Iterator[_Spool]:
        with ExitStack() as stack:
            try:
                file = stack.enter_context(tempfile.TemporaryFile(dir=self._spool_directory))
            except OSError as error:
                raise _name_disk_failure(error) from error
            yield _Spool(file)


class _Spool:
    """An archive under construction, in a file without a name: its root is known last, and stands first."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._places: dict[Digest, tuple[int, int]] = {}  # where a block's data starts, and its length
        self.size = len(encode_header(_ANY_ROOT))
        self._file.seek(self.size)

    def add(self, block: Block) -> None:
        try:
            self.size += self._file.write(encode_block(block))
        except OSError as error:
            raise _name_disk_failure(error) from error
        self._places[block.cid.digest] = self.size - len(block.data), len(block.data)

    def get(self, cid: Cid) -> bytes:
        """The data of a block that was added."""
        if cid.digest not in self._places:
            raise StoreFailed("block_absent", cid)
        start, length = self._places[cid.digest]
        self._file.seek(start)
        return self._file.read(length)

    def rewind(self, root: Cid) -> _Nameless:
        """The archive from its start, as often as wanted."""
        self._file.seek(0)
        self._file.write(encode_header(root))
        self._file.seek(0)
        return _Nameless(self._file)


class _Nameless:
    """A file that can be read and nothing else: of a file's name and place, the client would tell the daemon."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int, /) -> bytes:
        return self._file.read(size)


_ANY_ROOT: Final = Cid(RAW, bytes(DIGEST_BYTES))

# All that the client was seen to raise when a daemon is away, slow, broken or lying.
_FAILURES: Final = (
    *(client_errors.Error, requests.RequestException, HTTPError, HTTPException, OSError),
    *(KeyError, IndexError, TypeError, AttributeError, AssertionError, ValueError, RecursionError),
)


def _get_parts(error: BaseException) -> tuple[object, ...]:
    """What urllib3 packed into the error of a broken connection."""
    return error.__cause__.args if error.__cause__ else ()


def _name_disk_failure(error: OSError) -> StoreFailed:
    return StoreFailed(get_disk_reason(error, otherwise="disk_failed"), f"spool directory: {error.strerror}")


def _quote(said: object) -> str:
    """A daemon's own words, made harmless for a terminal and a log."""
    return ascii(str(said)[:MESSAGE_LENGTH_MAX])


def _iterate(answer: object) -> Iterator[object]:
    if not isinstance(answer, Iterator):
        raise StoreFailed("store_answer_malformed", "not a list of answers")
    yield from answer


def _read_map(answer: object) -> dict[str, object]:
    """A JSON object; the client claims one for any JSON there is."""
    raw = answer.as_json() if isinstance(answer, ResponseBase) else answer
    if not isinstance(raw, dict):
        raise StoreFailed("store_answer_malformed", "not a JSON object")
    return raw


def _read_number(answer: object) -> int:
    """A size; js-ipfs writes it as text."""
    text = str(answer)
    if isinstance(answer, bool) or not _SIZE_FORM.fullmatch(text):
        raise StoreFailed("store_answer_malformed", "not a size")
    return int(text)


def _read_pins(answer: object) -> set[Cid]:
    pins = set()
    for name in _read_map(_read_map(answer).get("Keys")):
        try:
            cid = parse_any_base(name)
        except Malformed:
            continue  # a pin of something else: CBOR, another hash
        if cid.version == 1:
            pins.add(cid)
    return pins


def _is_removed(item: object) -> bool:
    answer = _read_map(item)
    if answer.get("Error"):
        raise StoreFailed("store_refused", _quote(answer["Error"]))
    return "Key" in answer
