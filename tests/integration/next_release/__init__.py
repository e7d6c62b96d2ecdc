"""A release of this program that does not exist yet, for the tests of a rolling upgrade.

It is a copy of the packages as files, in which two lines differ and one family of transactions is new, as in a real
release. So the program before the upgrade is the one under test, as it is, and needs no switch that plays an old one.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from node.version import VERSION

ROOT: Final = Path(__file__).resolve().parent.parent.parent.parent
PACKAGES: Final = ("ledger", "contracts_native", "consensus", "p2p", "node")
NEW_FAMILY: Final = Path(__file__).with_name("notices.py")
PROTOCOL_VERSION: Final = 2
RELEASE: Final = f"{VERSION}-next"
CHANGES: Final = {
    "contracts_native/table.py": (
        "PROTOCOL_VERSION_MAX: Final = 1 ",
        f"PROTOCOL_VERSION_MAX: Final = {PROTOCOL_VERSION} ",
    ),
    "node/version.py": (f'"{VERSION}"', f'"{RELEASE}"'),
}


def make_release(directory: Path) -> Path:
    """Write the next release's packages; gives the directory to start nodes from."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, directory / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file, (now, then) in CHANGES.items():
        path = directory / file
        text = path.read_text()
        assert text.count(now) == 1, f"{file}: {now}"
        path.write_text(text.replace(now, then))
    shutil.copy(NEW_FAMILY, directory / "contracts_native")
    return directory
