"""Whom to dial and when, who is banned, and which of two connections stays."""

from __future__ import annotations

from itertools import product
from random import Random

import pytest

from ledger.primitives import PublicKey
from p2p.budgets import PeerLimits
from p2p.peers import (
    BACKOFF_MS_BASE,
    BACKOFF_MS_MAX,
    BAN_SCORE,
    PROTOCOL_BREACHES,
    SCORE_REGAIN_MS,
    STABLE_CONNECTION_MS,
    PeerAddress,
    PeerBook,
    is_newcomer_kept,
)

OWN, ANNA, BERT, GUEST = (PublicKey(bytes([value]) * 32) for value in (5, 1, 9, 7))
ADDRESSES = [PeerAddress(key, "127.0.0.1", 8600 + key[0]) for key in (OWN, ANNA, BERT)]
NOW_MS = 1_000_000
LIMITS = PeerLimits()


def make_book() -> PeerBook:
    return PeerBook(OWN, ADDRESSES, Random(3))


def get_due(book: PeerBook, now_ms: int) -> set[PublicKey]:
    return {address.public_key for address in book.list_due(now_ms)}


def fail_dial(book: PeerBook, key: PublicKey, now_ms: int) -> int:
    """Dial and fail at ``now_ms``; the wait until the next dial."""
    book.note_dialling(key)
    book.note_dial_ended(key, now_ms)
    (standing,) = [standing for standing in book.list_standings(now_ms) if standing.public_key == key]
    return standing.next_dial_ms - now_ms


def test_every_configured_peer_but_ourselves_is_dialled_at_once() -> None:
    assert get_due(make_book(), NOW_MS) == {ANNA, BERT}


def test_a_peer_being_dialled_or_connected_is_not_dialled_again() -> None:
    book = make_book()
    book.note_dialling(ANNA)
    book.note_connected(BERT, NOW_MS)
    assert get_due(book, NOW_MS) == set()
    assert book.find_next_due_ms() is None


def test_back_off_doubles_with_jitter_up_to_its_limit_and_never_ends() -> None:
    book, now_ms = make_book(), NOW_MS
    for attempt in range(40):
        wait_ms = fail_dial(book, ANNA, now_ms)
        longest_ms = min(BACKOFF_MS_BASE * 2**attempt, BACKOFF_MS_MAX)
        assert longest_ms // 2 <= wait_ms <= longest_ms
        assert ANNA not in get_due(book, now_ms + wait_ms - 1)
        now_ms += wait_ms
        assert ANNA in get_due(book, now_ms)


def test_the_same_seed_gives_the_same_waits() -> None:
    first, second = make_book(), make_book()
    assert [fail_dial(first, ANNA, t) for t in range(0, 10**6, 10**5)] == [
        fail_dial(second, ANNA, t) for t in range(0, 10**6, 10**5)
    ]


def test_a_lasting_connection_ends_the_series_of_failures_and_a_short_one_does_not() -> None:
    for lasted_ms, is_short_wait in ((STABLE_CONNECTION_MS, True), (STABLE_CONNECTION_MS - 1, False)):
        book = make_book()
        for attempt in range(8):
            fail_dial(book, ANNA, NOW_MS + attempt * 100_000)
        start_ms = NOW_MS + 10_000_000
        book.note_dialling(ANNA)
        book.note_connected(ANNA, start_ms)
        book.note_disconnected(ANNA, start_ms + lasted_ms)
        book.note_dial_ended(ANNA, start_ms + lasted_ms)
        due_ms = next(s.next_dial_ms for s in book.list_standings(start_ms) if s.public_key == ANNA)
        assert (due_ms - start_ms - lasted_ms <= BACKOFF_MS_BASE) == is_short_wait


@pytest.mark.parametrize("reason", sorted(PROTOCOL_BREACHES))
def test_one_breach_of_the_protocol_bans_for_a_while(reason: str) -> None:
    book = make_book()
    assert book.penalise(ANNA, reason, NOW_MS)
    assert book.is_banned(ANNA, NOW_MS + LIMITS.ban_ms - 1)
    assert get_due(book, NOW_MS + LIMITS.ban_ms - 1) == {BERT}
    assert not book.is_banned(ANNA, NOW_MS + LIMITS.ban_ms)
    assert get_due(book, NOW_MS + LIMITS.ban_ms) == {ANNA, BERT}


def test_each_ban_lasts_twice_as_long_up_to_a_limit() -> None:
    book, lengths = make_book(), []
    for _ in range(9):
        book.penalise(ANNA, "message_malformed", NOW_MS)
        lengths.append(next(s.banned_until_ms for s in book.list_standings(NOW_MS) if s.public_key == ANNA) - NOW_MS)
    assert lengths == [min(LIMITS.ban_ms * 2**n, LIMITS.ban_ms_max) for n in range(9)]


def test_lesser_faults_add_up_to_a_ban_and_quiet_time_forgives_them() -> None:
    book = make_book()
    faults = LIMITS.faults_before_ban
    assert [book.penalise(ANNA, "vote_invalid", NOW_MS) for _ in range(faults)] == [False] * (faults - 1) + [True]
    quiet_ms = SCORE_REGAIN_MS * -BAN_SCORE // faults
    assert not any(book.penalise(BERT, "vote_invalid", NOW_MS + n * quiet_ms) for n in range(faults * 3))


def test_the_operator_says_how_many_faults_ban_and_for_how_long() -> None:
    limits = PeerLimits(faults_before_ban=3, ban_ms=1_000, ban_ms_max=1_500)
    book = PeerBook(OWN, ADDRESSES, Random(3), limits)
    assert [book.penalise(ANNA, "vote_invalid", NOW_MS) for _ in range(3)] == [False, False, True]
    assert book.is_banned(ANNA, NOW_MS + 999)
    assert not book.is_banned(ANNA, NOW_MS + 1_000)
    assert book.penalise(ANNA, "message_malformed", NOW_MS)
    (standing,) = [one for one in book.list_standings(NOW_MS) if one.public_key == ANNA]
    assert (standing.bans, standing.banned_until_ms) == (2, NOW_MS + 1_500)


def test_a_peer_without_an_address_may_be_banned_and_is_never_dialled() -> None:
    book = make_book()
    book.note_connected(GUEST, NOW_MS)
    book.penalise(GUEST, "message_unknown", NOW_MS)
    book.note_disconnected(GUEST, NOW_MS)
    assert book.is_banned(GUEST, NOW_MS)
    assert GUEST not in get_due(book, NOW_MS + LIMITS.ban_ms_max)


def test_both_sides_keep_the_same_one_of_two_crossing_connections() -> None:
    # Whatever order each side sees the two connections in, what it keeps is the one that the lower key dialled.
    for low_sees_own_first, high_sees_own_first in product((True, False), repeat=2):
        low_keeps_newcomer = is_newcomer_kept(
            own_key=ANNA,
            peer_key=BERT,
            is_existing_dialled_by_us=low_sees_own_first,
            is_newcomer_dialled_by_us=not low_sees_own_first,
        )
        high_keeps_newcomer = is_newcomer_kept(
            own_key=BERT,
            peer_key=ANNA,
            is_existing_dialled_by_us=high_sees_own_first,
            is_newcomer_dialled_by_us=not high_sees_own_first,
        )
        assert (low_keeps_newcomer != low_sees_own_first) is True  # it keeps its own
        assert (high_keeps_newcomer != high_sees_own_first) is False  # it keeps the other's


def test_a_second_connection_from_the_same_side_replaces_the_first() -> None:
    for is_by_us, (own, peer) in product((True, False), ((ANNA, BERT), (BERT, ANNA))):
        assert is_newcomer_kept(
            own_key=own, peer_key=peer, is_existing_dialled_by_us=is_by_us, is_newcomer_dialled_by_us=is_by_us
        )
