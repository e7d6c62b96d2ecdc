"""The one canonical byte form: msgpack arrays, used to hash, sign, send and store.

Only nil, booleans, integers, bytes, text and arrays exist; there are no maps, so nothing has an order to choose,
and no floats. Decoding is strict: what does not re-encode to the very same bytes is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import msgpack

from ledger.errors import Malformed

Plain: TypeAlias = bool | int | bytes | str | Sequence["Plain"] | None

DECODE_BYTES_MAX: Final = 16 * 1024 * 1024  # the largest block with room to spare
DEPTH_MAX: Final = 12  # a block's evidence nests seven deep
ITEMS_MAX: Final = 512 * 1024  # a transaction of readings may be numbers of one byte throughout
_SKIMMED_BYTES_LEAST: Final = 256  # shorter ones cost little, whatever they claim to be
_COUNTED_BYTES_LEAST: Final = 4_096  # likewise, however many items they are


def encode(value: Plain) -> bytes:
    """The canonical bytes of a plain value. Tuples and lists are the same array."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def decode(data: bytes, *, bytes_max: int = DECODE_BYTES_MAX, items_max: int = ITEMS_MAX) -> Plain:
    """The plain value of canonical bytes; arrays come back as tuples.

    ``items_max`` is how many items all its arrays may have together, if it is longer than 4 KiB: two bytes of data can
    become a hundred of memory.
    Raises ``Malformed``: ``encoding_too_large``, ``encoding_too_many_items``, ``encoding_too_deep``,
    ``encoding_invalid``, ``encoding_not_canonical``.
    """
    if len(data) > bytes_max:
        raise Malformed("encoding_too_large", f"{len(data)} bytes, at most {bytes_max}")
    try:
        if len(data) > max(items_max, _COUNTED_BYTES_LEAST):
            _count_items(data, items_max)
        elif len(data) >= _SKIMMED_BYTES_LEAST:
            _skim(data)
        value: Plain = msgpack.unpackb(
            data, use_list=False, raw=False, object_pairs_hook=_refuse_map, ext_hook=_refuse_extension
        )
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise Malformed("encoding_invalid", type(error).__name__) from error
    _check_plain(value, depth_left=DEPTH_MAX)
    if msgpack.packb(value, use_bin_type=True) != data:
        raise Malformed("encoding_not_canonical", "the bytes are not the shortest form")
    return value


def decode_first(data: bytes) -> Plain:
    """The first item of an array, without looking at the others: for bytes that were checked when they were written.

    Raises ``Malformed`` (``encoding_invalid``).
    """
    unpacker = msgpack.Unpacker(use_list=False, raw=False, max_buffer_size=DECODE_BYTES_MAX)
    try:
        unpacker.feed(data)
        unpacker.read_array_header()
        first: Plain = unpacker.unpack()
    except (ValueError, msgpack.UnpackException) as error:
        raise Malformed("encoding_invalid", type(error).__name__) from error
    return first


def _skim(data: bytes) -> None:
    """Check that everything is there before anything is built: arrays that claim more than follows cost memory."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(data))
    unpacker.feed(data)
    unpacker.skip()


def _count_items(data: bytes, items_max: int) -> None:
    """Check the same, and how much would be built. An item has a byte at least, so only what is longer is counted."""
    unpacker = msgpack.Unpacker(max_buffer_size=len(data))
    unpacker.feed(data)
    items = 0
    missing = [1]  # of each array that is open, and the value itself
    while missing:
        if not missing[-1]:
            missing.pop()
            continue
        missing[-1] -= 1
        kind = data[unpacker.tell()] if unpacker.tell() < len(data) else None
        if kind in _MAPS:
            raise Malformed("encoding_invalid", "maps are not part of the format")
        if kind not in _ARRAYS:
            unpacker.skip()
            continue
        count = unpacker.read_array_header()
        items += count
        if items > items_max:
            raise Malformed("encoding_too_many_items", f"at most {items_max}")
        if len(missing) > DEPTH_MAX:
            raise Malformed("encoding_too_deep", f"at most {DEPTH_MAX} levels")
        missing.append(count)


def _refuse_map(_pairs: object) -> None:
    raise Malformed("encoding_invalid", "maps are not part of the format")


def _refuse_extension(code: int, _data: bytes) -> None:
    raise Malformed("encoding_invalid", f"extension type {code}")


_ARRAYS: Final = frozenset({*range(0x90, 0xA0), 0xDC, 0xDD})  # the first byte of an array, by the msgpack specification
_MAPS: Final = frozenset({*range(0x80, 0x90), 0xDE, 0xDF})
_SCALARS: Final = frozenset({int, bytes, str, bool, type(None)})


def _check_plain(value: object, *, depth_left: int) -> None:
    if type(value) in _SCALARS:
        return
    if type(value) is not tuple:
        raise Malformed("encoding_invalid", f"{type(value).__name__} is not part of the format")
    if depth_left == 0:
        raise Malformed("encoding_too_deep", f"at most {DEPTH_MAX} levels")
    for item in value:
        if type(item) not in _SCALARS:
            _check_plain(item, depth_left=depth_left - 1)
