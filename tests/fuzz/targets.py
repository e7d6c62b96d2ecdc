"""Every decoder that a stranger can reach, by the name that the command line has for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.fuzz.file_targets import FILE_TARGETS
from tests.fuzz.fork_targets import FORK_TARGETS
from tests.fuzz.ledger_targets import LEDGER_TARGETS
from tests.fuzz.network_targets import NETWORK_TARGETS
from tests.fuzz.target import Target

TARGETS: Final[Mapping[str, Target]] = {
    target.name: target for target in (*LEDGER_TARGETS, *NETWORK_TARGETS, *FILE_TARGETS, *FORK_TARGETS)
}
