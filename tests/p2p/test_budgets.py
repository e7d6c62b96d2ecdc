"""Shares of time and rates a second: what a peer or a client may use, and what a quiet one gets back."""

from __future__ import annotations

from p2p.budgets import TIME_BURST_MS, TIME_DEBT_MS_MAX, TimeBudget, TokenBuckets


def test_a_peer_within_its_share_is_never_left_waiting() -> None:
    budget = TimeBudget(25, 0)
    for second in range(100):
        assert budget.charge(250_000, second * 1000) == 0


def test_a_peer_beyond_its_share_waits_until_its_share_is_met_again() -> None:
    budget, now_ms, used_us = TimeBudget(25, 0), 0, 0
    while now_ms < 60_000:
        used_us += 10_000
        now_ms += 10 + budget.charge(10_000, now_ms)
    assert 0.24 < used_us / 1000 / now_ms < 0.27


def test_a_burst_is_forgiven_and_a_debt_has_an_end() -> None:
    budget = TimeBudget(25, 0)
    assert budget.charge(TIME_BURST_MS * 1000, 0) == 0
    assert budget.charge(1_000, 0) == 5
    assert budget.charge(10**9, 0) == TIME_DEBT_MS_MAX
    assert budget.charge(0, 10**8) == 0


def test_a_clock_that_steps_back_gives_nothing_and_takes_nothing() -> None:
    budget = TimeBudget(50, 1_000)
    assert budget.charge(TIME_BURST_MS * 1000, 0) == 0
    assert budget.charge(1_000, 500) == 3
    buckets = TokenBuckets(per_second=1, burst=1, keys_max=9)
    assert [buckets.take("a", now_ms) for now_ms in (5_000, 1_000, 5_500, 6_000)] == [True, False, False, True]


def test_a_rate_is_a_burst_and_then_so_many_a_second_for_each_key() -> None:
    buckets = TokenBuckets(per_second=10, burst=3, keys_max=9)
    assert [buckets.take("a", 0) for _ in range(4)] == [True, True, True, False]
    assert buckets.take("b", 0)
    assert [buckets.take("a", 100), buckets.take("a", 100)] == [True, False]
    assert sum(buckets.take("a", now_ms) for now_ms in range(101, 10_101)) == 100


def test_many_at_once_are_all_within_the_rate_or_none_is_spent() -> None:
    buckets = TokenBuckets(per_second=1, burst=10, keys_max=9)
    assert not buckets.take("a", 0, 11)
    assert buckets.take("a", 0, 10)
    assert not buckets.take("a", 0)


def test_only_so_many_keys_are_remembered() -> None:
    buckets = TokenBuckets(per_second=1, burst=1, keys_max=3)
    for number in range(100):
        assert buckets.take(str(number), 0)
    assert len(buckets) == 3
    assert not buckets.take("99", 0)
