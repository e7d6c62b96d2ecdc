"""A machine whose wall clock is off: ``python -m tests.integration.other_clock MILLISECONDS COMMAND… HOME``.

Runs the node of a home in this process, in which the wall clock shows so much more (or less) than it does. The program
itself has no such switch. The monotonic clock, which timers go by, stays true: on a real machine it does.
"""

from __future__ import annotations

import runpy
import sys
import time
from unittest.mock import patch

from node.testnet import NODE_MODULE


def main(arguments: list[str]) -> None:
    """Run the node; what it returns ends the process."""
    offset_ns, home = int(arguments[0]) * 1_000_000, arguments[-1]
    true_ns = time.time_ns
    sys.argv = [NODE_MODULE, home]
    with patch.object(time, "time_ns", lambda: true_ns() + offset_ns):
        runpy.run_module(NODE_MODULE, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1:])
