"""How Hypothesis searches: alike every time, unless somebody asks for a search.

Owns the profiles. The default tries the same examples in every run, so that a suite never fails by luck;
``HYPOTHESIS_PROFILE=search pytest tests/properties`` looks for new ones, for long, and keeps what it found.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

SEARCH_EXAMPLES = 5_000

settings.register_profile(
    "suite",
    derandomize=True,
    database=None,
    deadline=None,  # a machine that is busy is no fault of a test
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile(
    "search",
    max_examples=SEARCH_EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))
