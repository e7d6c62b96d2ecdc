"""The command line: ``wattprint``, the same program as ``python -m node``.

Owns nothing but the door: ``main`` is the console script, ``app`` is the tree of commands (see ``app.py``).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

try:
    from node.cli.app import app
except KeyboardInterrupt:
    # Reading all of the program takes half a second, in which nothing else answers Ctrl-C.
    sys.exit(130)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status: 0 done, 1 refused by the ledger, 2 wrong usage, 3 no node answered."""
    try:
        app.main(args=None if arguments is None else list(arguments), prog_name="wattprint")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0
