"""What the program imports is what ``make`` installs: a fresh clone runs, not only the machine it was written on."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = ("consensus", "contracts_native", "ledger", "node", "p2p")


def list_imported() -> set[str]:
    """The top-level modules of others that any file of the program imports, wherever in it."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    found = {name for path in files for name in iterate_imports(ast.parse(path.read_text()))}
    return found - set(PACKAGES) - sys.stdlib_module_names


def iterate_imports(node: ast.AST) -> Iterator[str]:
    """What is imported when the program runs: what only the type checker sees needs no installing."""
    if isinstance(node, ast.Import):
        yield from (one.name.partition(".")[0] for one in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module.partition(".")[0]
    is_for_types = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    for child in node.orelse if is_for_types and isinstance(node, ast.If) else ast.iter_child_nodes(node):
        yield from iterate_imports(child)


def read_names(lines: list[str]) -> set[str]:
    """The distributions that requirement lines name, as indexes normalise them."""
    words = [match[0] for line in lines if (match := re.match(r"[A-Za-z0-9._-]+", line))]
    return {normalise(word) for word in words}


def normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_everything_imported_is_installed_by_make_and_declared() -> None:
    pinned = read_names((ROOT / "requirements.txt").read_text().splitlines())
    declared = read_names(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    homes = packages_distributions()
    imported = list_imported()
    assert "click" in imported
    for module in sorted(imported):
        distributions = {normalise(name) for name in homes.get(module, [module])}
        assert distributions & pinned, f"{module} is not in requirements.txt"
        assert distributions & declared, f"{module} is not in pyproject.toml"
