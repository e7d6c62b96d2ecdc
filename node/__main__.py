"""``python -m node``: the same program as the console script ``wattprint``."""

from __future__ import annotations

import sys

from node.cli import main

if __name__ == "__main__":
    sys.exit(main())
