"""When a peer that says nothing is pinged, and when it is taken for dead: by ticks, so without a clock."""

from __future__ import annotations

from random import Random

import pytest

from p2p.silence import DEAD_AFTER_TICKS, PING_AFTER_TICKS, Silence, Verdict


def listen(silence: Silence, heard: int, ticks: int) -> list[Verdict]:
    return [silence.tick(heard=heard, is_listening=True) for _ in range(ticks)]


def test_a_silent_peer_is_pinged_once_and_then_dead() -> None:
    silence = Silence()
    verdicts = listen(silence, 0, DEAD_AFTER_TICKS)
    expected = [Verdict.NOTHING] * DEAD_AFTER_TICKS
    expected[PING_AFTER_TICKS - 1], expected[DEAD_AFTER_TICKS - 1] = Verdict.PING, Verdict.DEAD
    assert verdicts == expected


def test_any_byte_begins_the_silence_anew_also_after_the_ping() -> None:
    silence = Silence()
    for heard in range(1, 100):
        assert silence.tick(heard=heard, is_listening=True) is Verdict.NOTHING
        assert listen(silence, heard, DEAD_AFTER_TICKS - 1).count(Verdict.PING) == 1


def test_a_peer_that_we_leave_unread_is_never_dead_nor_pinged() -> None:
    silence = Silence()
    verdicts = {silence.tick(heard=0, is_listening=False) for _ in range(10 * DEAD_AFTER_TICKS)}
    assert verdicts == {Verdict.NOTHING}


def test_what_we_did_not_read_counts_for_nothing_once_we_listen_again() -> None:
    silence = Silence()
    listen(silence, 0, DEAD_AFTER_TICKS - 1)
    silence.tick(heard=0, is_listening=False)
    assert listen(silence, 0, DEAD_AFTER_TICKS)[-1] is Verdict.DEAD
    assert listen(silence, 1, DEAD_AFTER_TICKS)[0] is Verdict.NOTHING


@pytest.mark.parametrize("seed", range(50))
def test_only_whoever_was_silent_while_we_listened_all_the_time_is_dead(seed: int) -> None:
    random, silence, heard, silent_ticks = Random(seed), Silence(), 0, 0
    for _ in range(2_000):
        is_listening, arrived = random.random() < 0.9, random.random() < 0.1
        heard += arrived
        silent_ticks = silent_ticks + 1 if is_listening and not arrived else 0
        verdict = silence.tick(heard=heard, is_listening=is_listening)
        assert (verdict is Verdict.DEAD) == (silent_ticks >= DEAD_AFTER_TICKS)
        assert (verdict is Verdict.PING) == (silent_ticks == PING_AFTER_TICKS)
