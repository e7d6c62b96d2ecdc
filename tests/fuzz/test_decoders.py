"""Every decoder returns, or refuses by name, whatever bytes a stranger hands in.

The same targets run for as long as one likes, guided by coverage: `make fuzz ARGS="--target wire --seconds 60"`.
"""

from __future__ import annotations

from random import Random
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.mutation import mutate
from tests.fuzz.target import Target, take
from tests.fuzz.targets import TARGETS

EXAMPLES: Final = 150  # of each target, about 25 s of processor time for all
BYTES_MAX: Final = 300
WITHOUT_SEEDS: Final = frozenset({"manifest"})

targets = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@targets
def test_any_bytes_are_taken_or_refused_by_name(target: Target) -> None:
    seeds = target.seeds()

    @settings(max_examples=EXAMPLES)
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
