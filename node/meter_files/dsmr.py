"""DSMR P1 telegrams and their relatives (IEC 62056-21 mode D): what a meter's customer port says.

Owns the telegram's form, its checksum, and the energy registers 1.8 and 2.8. A telegram has counters, not intervals:
an interval is the difference between two telegrams, and energy that no telegram saw is in the next difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from typing import Final

from contracts_native.meters import Channel
from contracts_native.readings import Flag
from node.meter_files.instants import find_instant_s
from node.meter_files.lines import iterate_lines
from node.meter_files.model import (
    CHANNELS_MAX,
    POINT_LETTERS_MAX,
    Book,
    ChannelEvent,
    ChannelId,
    Event,
    MeterFile,
    RegisterValue,
    Skipped,
    Spot,
)
from node.meter_files.quantities import PICO_PER_WH, NotExact, find_energy_exponent, parse_pico_wh

TELEGRAM_BYTES_MAX: Final = 64 * 1024
TELEGRAMS_LOOKED_AT: Final = 64  # for the step between two of them
DIRECTIONS: Final = {"1": Channel.CONSUMPTION, "2": Channel.PRODUCTION}
OFFSETS_S: Final = {"W": 3_600, "S": 7_200}  # winter and summer time of Central Europe
CRC_POLYNOMIAL: Final = 0xA001  # 0x8005 reflected

_REGISTER: Final = re.compile(rb"(?:1-0:)?([12])\.8\.([0-9]{1,3})(?:\*255)?\(([^)]*)\)")
_TIME: Final = re.compile(rb"0-0:1\.0\.0(?:\*255)?\(([^)]*)\)")
_TIME_TEXT: Final = re.compile(rb"([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([WS]?)")
_IDENTITY: Final = re.compile(rb"0-0:96\.1\.(1|255)(?:\*255)?\(([0-9A-Za-z]{1,96})\)")
_HEADER: Final = re.compile(rb"/[A-Za-z0-9]{3}[^\r\n]{1,120}\r?\n")


def _make_crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (CRC_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_CRC_TABLE: Final = _make_crc_table()


def compute_crc(data: bytes) -> int:
    """CRC-16/ARC, as DSMR 4 and 5 have it over everything from ``/`` to ``!``."""
    crc = 0
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc


@dataclass(frozen=True, slots=True)
class Telegram:
    """What a telegram says of energy. ``registers`` are in 10⁻¹² Wh, with the unit as the meter writes it."""

    spot: Spot
    point: str
    time_ms: int | None
    registers: dict[Channel, tuple[int, str]]


def read_dsmr(file: MeterFile) -> Iterator[Event]:
    """The registers of each telegram, and the intervals between telegrams. Raises ``MeterFileError``."""
    telegrams = iterate_telegrams(file)
    first = list(islice(telegrams, TELEGRAMS_LOOKED_AT))
    if not first:
        raise Spot(file.name, 1).error("telegram_incomplete", "no whole telegram from / to !")
    steps = [
        (later.time_ms - earlier.time_ms) // 1_000
        for earlier, later in pairwise(first)
        if earlier.time_ms is not None and later.time_ms is not None and later.time_ms > earlier.time_ms
    ]
    following = _Following(file.name, min(steps, default=0))
    for telegram in chain(first, telegrams):
        yield from following.take(telegram)


def iterate_telegrams(file: MeterFile) -> Iterator[Telegram]:
    """The whole telegrams of a recording, which may begin and end in the middle of one."""
    raw: list[bytes] | None = None
    size = 0
    start = Spot(file.name, 1)
    for number, line in iterate_lines(file):
        if _HEADER.fullmatch(line):  # also inside a telegram: the rest of that one was lost
            raw, size, start = [line], len(line), Spot(file.name, number)
        elif raw is None:
            continue
        elif line.startswith(b"!"):
            spot = Spot(file.name, number)
            _check_crc(b"".join(raw), line, spot)
            yield _read_telegram(raw, start)
            raw = None
        else:
            raw.append(line)
            size += len(line)
            if size > TELEGRAM_BYTES_MAX:
                raise start.error("telegram_too_long", f"at most {TELEGRAM_BYTES_MAX} bytes")


def _check_crc(body: bytes, last: bytes, spot: Spot) -> None:
    said = last[1:].strip()
    if not said:  # before DSMR 4 there is none
        return
    if not re.fullmatch(rb"[0-9A-Fa-f]{1,4}", said):
        raise spot.error("checksum_wrong", said.decode("latin-1"))
    whole = body + b"!"
    found = {compute_crc(whole)}
    if b"\r" not in whole:  # recordings lose carriage returns; the meter computed with them
        found.add(compute_crc(whole.replace(b"\n", b"\r\n")))
    if int(said, 16) not in found:
        raise spot.error("checksum_wrong", f"{said.decode('latin-1')}, the telegram has {min(found):04X}")


def _read_telegram(raw: list[bytes], start: Spot) -> Telegram:
    point = raw[0][1:].strip().decode("latin-1")
    time_ms: int | None = None
    parts: dict[Channel, dict[int, tuple[int, str]]] = {}
    for offset, line in enumerate(raw[1:], start=1):
        spot = Spot(start.source, start.line + offset)
        if register := _REGISTER.match(line):
            mine = parts.setdefault(DIRECTIONS[register[1].decode()], {})
            tariff = int(register[2])
            if tariff in mine:
                raise spot.error("register_named_twice", line.decode("latin-1").strip())
            mine[tariff] = _read_register(register[3].decode("latin-1"), spot)
        elif clock := _TIME.match(line):
            time_ms = _read_time(clock[1], spot)
        elif identity := _IDENTITY.match(line):
            point = _read_identity(identity[2].decode("ascii"))
    registers = {direction: _add_tariffs(mine) for direction, mine in parts.items()}
    return Telegram(start, _make_printable(point), time_ms, registers)


def _add_tariffs(mine: dict[int, tuple[int, str]]) -> tuple[int, str]:
    """Tariff 0 is the sum of the others where a meter has it."""
    if 0 in mine:
        return mine[0]
    return sum(pico for pico, _ in mine.values()), next(iter(mine.values()))[1]


def _read_register(text: str, spot: Spot) -> tuple[int, str]:
    number, _, unit = text.partition("*")
    exponent = find_energy_exponent(unit)
    if exponent is None:
        raise spot.error("unit_unknown", text)
    try:
        pico = parse_pico_wh(number, exponent)
    except NotExact as error:
        raise spot.error(str(error), text) from None
    if pico < 0:
        raise spot.error("value_negative", text)
    return pico, unit


def _read_time(text: bytes, spot: Spot) -> int:
    match = _TIME_TEXT.fullmatch(text)
    if match is None:
        raise spot.error("time_invalid", text.decode("latin-1"))
    year, *rest = (int(part) for part in match.groups()[:6])
    local_s = find_instant_s(2_000 + year, *rest)
    if local_s is None:
        raise spot.error("time_invalid", text.decode("latin-1"))
    if not match[7]:
        raise spot.error("time_without_offset", text.decode("latin-1"))
    return (local_s - OFFSETS_S[match[7].decode()]) * 1_000


def _read_identity(text: str) -> str:
    """A meter's number, which most meters write as the hexadecimal form of its letters."""
    try:
        said = bytes.fromhex(text).decode("ascii")
    except ValueError:
        return text
    return said if said.isprintable() and said.strip() else text


def _make_printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:POINT_LETTERS_MAX]


@dataclass(slots=True)
class _Counter:
    """Where a register stood at the last telegram with a time, or at the last one at all."""

    channel: ChannelId
    time_ms: int | None
    pico: int


class _Following:
    """Telegram after telegram: what each register did since the one before."""

    def __init__(self, source: str, step_s: int) -> None:
        self._source = source
        self._step_s = step_s
        self._book = Book()
        self._counters: dict[tuple[str, Channel], _Counter] = {}
        self._skipped: set[str] = set()

    def take(self, telegram: Telegram) -> Iterator[Event]:
        if not telegram.registers and telegram.point not in self._skipped and len(self._skipped) < CHANNELS_MAX:
            self._skipped.add(telegram.point)
            yield Skipped(self._source, telegram.point, "no register of electricity")
        for direction, (pico, unit) in telegram.registers.items():
            yield from self._count(telegram, direction, pico, unit)

    def _count(self, telegram: Telegram, direction: Channel, pico: int, unit: str) -> Iterator[ChannelEvent]:
        key = (telegram.point, direction)
        counter = self._counters.get(key)
        if counter is None:
            if len(self._counters) == CHANNELS_MAX:
                raise telegram.spot.error("channels_too_many", f"at most {CHANNELS_MAX}")
            channel = ChannelId(self._source, telegram.point, direction, unit, self._step_s)
            counter = self._counters[key] = _Counter(channel, telegram.time_ms, pico)
        elif pico < counter.pico:
            raise telegram.spot.error("register_runs_backwards", f"{direction.value} of {telegram.point}")
        elif telegram.time_ms is not None and counter.time_ms is not None:
            yield from self._enter_interval(telegram, counter, telegram.time_ms - counter.time_ms, pico)
        yield counter.channel, RegisterValue(telegram.time_ms, pico // PICO_PER_WH)
        counter.time_ms, counter.pico = telegram.time_ms or counter.time_ms, pico

    def _enter_interval(self, telegram: Telegram, counter: _Counter, step_ms: int, pico: int) -> Iterator[ChannelEvent]:
        if step_ms < 0:
            raise telegram.spot.error("time_not_rising", telegram.point)
        if step_ms == 0:
            if pico != counter.pico:
                raise telegram.spot.error("interval_overlaps", f"two readings of {telegram.point} at one time")
            return
        assert counter.time_ms is not None
        # Whole Wh as the counter shows them: an interval is what the shown counter moved.
        moved = (pico // PICO_PER_WH - counter.pico // PICO_PER_WH) * PICO_PER_WH
        yield self._book.enter(
            counter.channel,
            telegram.spot,
            start_ms=counter.time_ms,
            length_s=step_ms // 1_000,
            pico=moved,
            flag=Flag.MEASURED,
        )
