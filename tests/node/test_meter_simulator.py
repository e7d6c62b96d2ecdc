"""The simulator plays a file against any clock, goes on from where the ledger stands, and the feed finds telegrams."""

from __future__ import annotations

import pytest

from contracts_native.meters import Channel
from contracts_native.readings import Flag
from node.meter_files.csv_file import read_csv
from node.meter_files.dsmr import Telegram, compute_crc
from node.meter_files.model import ChannelData, collect_channels, make_meter_file
from node.meters.reports import NEVER, MeterError, Stand, advance_stand, make_signing_meter
from node.meters.simulator import Pace, Player
from node.meters.telegrams import Damaged, TelegramFeed
from tests.node.meters_relay import METER, PRODUCTION, QUARTER_MS, START_MS

CSV = """start_utc,production_wh,consumption_wh,flag
2024-06-06T00:00:00Z,5,1,measured
2024-06-06T00:15:00Z,6,2,measured
2024-06-06T00:30:00Z,7,,estimated
2024-06-06T01:00:00Z,8,4,measured
"""
NOW_MS = START_MS + 10**10  # long after


def read_file(text: str = CSV) -> list[ChannelData]:
    return collect_channels(read_csv(make_meter_file("june.csv", text.encode())))


def start(pace: Pace, now_ms: int = NOW_MS) -> Player:
    player = Player(METER, read_file(), pace)
    player.start(now_ms)
    return player


def play_due(player: Player, now_ms: int, stands: dict[Channel, Stand]) -> list[tuple[Channel, int, tuple[int, ...]]]:
    """Report what is due, as if the ledger took it."""
    reports = player.list_due(now_ms, stands)
    for one in reports:
        stands[one.channel] = advance_stand(stands.get(one.channel, NEVER), one)
    player.skip(stands)
    return [(one.channel, one.sequence, one.values_wh) for one in reports]


def test_as_fast_all_of_it_goes_at_once_in_stretches() -> None:
    player = start(Pace(None))
    stands: dict[Channel, Stand] = {}
    assert play_due(player, NOW_MS, stands) == [
        (PRODUCTION, 1, (5, 6)),
        (PRODUCTION, 2, (7,)),
        (PRODUCTION, 3, (8,)),
        (Channel.CONSUMPTION, 1, (1, 2)),
        (Channel.CONSUMPTION, 2, (4,)),
    ]
    assert (player.left, player.compute_next_ms()) == (0, None)
    assert stands[PRODUCTION] == Stand(3, START_MS + 5 * QUARTER_MS, 26)


@pytest.mark.parametrize("speed", [1, 90, 900])
def test_an_interval_is_reported_when_it_is_over_by_the_clock(speed: int) -> None:
    player, stands = start(Pace(speed)), dict[Channel, Stand]()
    seen = []
    now_ms = NOW_MS
    while (next_ms := player.compute_next_ms()) is not None:
        assert next_ms > now_ms
        assert play_due(player, next_ms - 1, stands) == []
        now_ms = next_ms
        seen.append((now_ms - NOW_MS, sum(len(values) for _, _, values in play_due(player, now_ms, stands))))
    assert seen == [(place * QUARTER_MS // speed, count) for place, count in ((1, 2), (2, 2), (3, 1), (5, 2))]


def test_nothing_is_reported_before_it_has_happened() -> None:
    player = Player(METER, read_file(), Pace(None))
    player.start(START_MS)
    assert player.compute_next_ms() == START_MS + QUARTER_MS
    assert play_due(player, START_MS + QUARTER_MS - 1, {}) == []
    assert play_due(player, START_MS + QUARTER_MS, {}) == [(PRODUCTION, 1, (5,)), (Channel.CONSUMPTION, 1, (1,))]


def test_a_simulator_that_was_stopped_goes_on_from_the_ledger() -> None:
    player = Player(METER, read_file(), Pace(None))
    stands = {PRODUCTION: Stand(9, START_MS + 2 * QUARTER_MS, 700), Channel.CONSUMPTION: NEVER}
    assert player.skip(stands) == 2
    player.start(NOW_MS)
    reports = player.list_due(NOW_MS, stands)
    assert [(one.channel, one.sequence, one.register_start_wh, one.flag) for one in reports] == [
        (PRODUCTION, 10, 700, Flag.ESTIMATED),
        (PRODUCTION, 11, 707, Flag.MEASURED),
        (Channel.CONSUMPTION, 1, 0, Flag.MEASURED),
        (Channel.CONSUMPTION, 2, 3, Flag.MEASURED),
    ]


def test_what_was_sent_and_perhaps_lost_is_sent_again_only_if_the_ledger_has_it_not() -> None:
    player = start(Pace(None))
    first = player.list_due(NOW_MS, {})
    assert player.list_due(NOW_MS, {}) == first
    player.skip({PRODUCTION: Stand(2, START_MS + 3 * QUARTER_MS, 18)})
    again = player.list_due(NOW_MS, {PRODUCTION: Stand(2, START_MS + 3 * QUARTER_MS, 18)})
    assert again[0] == first[2]


def test_a_channel_that_the_meter_has_not_is_refused() -> None:
    text = CSV.replace("production_wh", "a_production_wh").replace("consumption_wh", "b_production_wh")
    with pytest.raises(MeterError, match="channel_unknown"):
        Player(METER, read_file(text), Pace())


def test_a_key_that_the_ledger_does_not_know_is_refused_before_anything_is_signed() -> None:
    with pytest.raises(MeterError, match="meter_key_unknown"):
        make_signing_meter("chain", {"key": "00" * 32, "meter": "ab" * 16, "channels": []}, METER.key)


# — telegrams out of a stream —


def make_telegram(counter: str = "000123.456", *, crc: int | None = None) -> bytes:
    body = f"/XMX5LGBBFFB231314239\r\n\r\n0-0:1.0.0(240606020000S)\r\n1-0:2.8.1({counter}*kWh)\r\n!".encode()
    return body + f"{compute_crc(body) if crc is None else crc:04X}\r\n".encode()


def list_wh(found: list[Telegram | Damaged]) -> list[object]:
    return [one.reason if isinstance(one, Damaged) else one.registers[PRODUCTION][0] // 10**12 for one in found]


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_telegrams_are_found_however_the_stream_is_cut(size: int) -> None:
    stream = b"3.456*kWh)\r\n!0000\r\n" + make_telegram() + b"noise\r\n" + make_telegram("000124.000") + b"/XMX"
    feed, found = TelegramFeed("port"), list[Telegram | Damaged]()
    for first in range(0, len(stream), size):
        found += feed.feed(stream[first : first + size])
    assert list_wh(found) == [123_456, 124_000]
    assert isinstance(found[0], Telegram)
    assert found[0].time_ms == START_MS


def test_a_damaged_telegram_is_told_of_and_the_next_one_counts() -> None:
    feed = TelegramFeed("port")
    cut = make_telegram()[:60]
    found = feed.feed(make_telegram(crc=1) + cut + make_telegram("000125.000"))
    assert list_wh(found) == ["checksum_wrong", 125_000]
    assert list_wh(feed.feed(make_telegram("00012x.000"))) == ["value_not_a_number"]


def test_a_stream_without_telegrams_needs_no_memory() -> None:
    feed = TelegramFeed("port")
    assert "telegram_too_long" in list_wh(feed.feed(b"\x00" * 500_000))
    assert list_wh(feed.feed(b"\r\n" + make_telegram())) == [123_456]


def test_the_last_telegram_of_a_message_may_lack_its_line_end() -> None:
    feed = TelegramFeed("topic")
    assert feed.feed(make_telegram().rstrip()) == []
    assert list_wh(feed.finish()) == [123_456]
