"""Every decoder returns, or refuses by name, whatever bytes a stranger hands in.

The same targets run for as long as one likes, guided by coverage: `make fuzz ARGS="--target wire --seconds 60"`.
About 25 s of processor time; ``HYPOTHESIS_PROFILE=search`` tries fifty times as many mutations.
"""

from __future__ import annotations

import time
import tracemalloc
from random import Random
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.hostile import iterate_hostile
from tests.fuzz.mutation import mutate
from tests.fuzz.target import Target, take
from tests.fuzz.targets import TARGETS

BYTES_MAX: Final = 300
MS_MAX: Final = 1_500  # with memory traced, which makes it several times as slow
MEMORY_BYTES_MAX: Final = 20 * 1024 * 1024
# What the best seed of a target comes to. An encrypted document is never what the target says was committed to.
WELL_FORMED: Final = dict.fromkeys(TARGETS, "") | {"encrypted-document": "content_not_committed"}

targets = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@targets
def test_any_bytes_are_taken_or_refused_by_name(target: Target) -> None:
    seeds = target.seeds()

    @given(
        st.one_of(
            st.binary(max_size=BYTES_MAX),
            st.builds(
                lambda seed, number: mutate(seed, Random(number), seeds),
                st.sampled_from(seeds),
                st.integers(0, 2**32),
            ),
        )
    )
    def check(data: bytes) -> None:
        take(target, data)

    check()


@targets
def test_a_seed_is_taken_or_refused_for_what_it_says(target: Target) -> None:
    """Mutation begins near what is good: at least one seed of each target passes."""
    assert WELL_FORMED[target.name] in {take(target, seed) for seed in target.seeds()}


@targets
def test_a_small_input_costs_little(target: Target) -> None:
    """Neither seconds of processor time nor hundreds of megabytes, whatever 20 KB say."""
    for name, data in iterate_hostile(target.seeds()):
        tracemalloc.start()
        began_ns = time.process_time_ns()
        try:
            take(target, data)
            used_ms = (time.process_time_ns() - began_ns) // 1_000_000
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert used_ms < MS_MAX, name
        assert peak_bytes < MEMORY_BYTES_MAX, name
