"""The architecture as a test: who may import whom, which files touch the world, and what no pure file contains.

It reads like docs/architecture.md. A file that needs the world is added to ``WORLD`` by hand, with a reason to
believe that it must; everything else is a function of its inputs.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGES: Final = ("ledger", "contracts_native", "consensus", "p2p", "node")
CODE: Final = (*PACKAGES, "tests", "benchmarks", "examples", "stubs")

# node → p2p → consensus → ledger; node → contracts_native → ledger. The node hands the ledger its transactions.
MAY_IMPORT: Final = {
    "ledger": frozenset[str](),
    "contracts_native": frozenset({"ledger"}),
    "consensus": frozenset({"ledger"}),
    "p2p": frozenset({"consensus", "ledger"}),
    "node": frozenset({"p2p", "consensus", "contracts_native", "ledger"}),
}
CONSENSUS_MAY_USE: Final = frozenset({"ledger.primitives", "ledger.encoding", "ledger.errors", "ledger.authorities"})

# participants ← sites ← meters ← lots ← batteries ← readings ← matching ← claims; credits ← bills ← escrow;
# lots, credits ← offers; claims ← storage; claims, offers ← corrections.
# A file may import those in its own row and whatever they may import. A file that is not named here is a helper, which
# imports none of these, or a new family on top of all, which no other imports; once one does, it gets its row.
CONTRACTS_BELOW: Final = {
    "participants": (),
    "sites": ("participants",),
    "meters": ("sites",),
    "amendments": ("meters",),
    "lots": ("meters", "slices"),
    "slices": (),
    "batteries": ("lots",),
    "readings": ("batteries",),
    "matching": ("readings",),
    "claims": ("matching",),
    "storage": ("claims",),
    "corrections": ("claims", "offers"),
    "kyc": ("participants", "documents"),
    "credits": ("participants",),
    "escrow": ("credits", "bills"),
    "bills": ("credits", "readings"),
    "offers": ("lots", "credits"),
    "documents": ("sites",),
    "governance": ("participants",),
}
CONTRACTS_ON_TOP: Final = frozenset({"table", "genesis"})  # put the families together, and may import them all

# The files that touch the world: clock, disk, socket, randomness, environment, processes.
WORLD: Final = (
    "p2p/network.py",
    "p2p/connection.py",
    "p2p/wire.py",
    "p2p/tls.py",
    "node/runtime.py",
    "node/http_server.py",
    "node/rpc.py",
    "node/rpc_dispatch.py",
    "node/rpc_long_reads.py",
    "node/rpc_socket.py",
    "node/leveldb_store.py",
    "node/housekeeping.py",
    "node/joining.py",
    "node/journal.py",
    "node/rollback.py",
    "node/snapshot_files.py",
    "node/keystore.py",
    "node/files.py",
    "node/config.py",
    "node/logs.py",
    "node/client.py",
    "node/readiness.py",
    "node/testnet.py",
    "node/launch.py",
    "node/__main__.py",
    "node/meter_files/opening.py",
    "node/meters/outbox.py",
    "node/meters/sources.py",
    "node/meters/running.py",
    "node/bench/*.py",
    "node/demo/data.py",
    "node/demo/documents.py",
    "node/demo/narrator.py",
    "node/demo/network.py",
    "node/demo/outage.py",
    "node/demo/story.py",
    "node/documents/daemon.py",
    "node/documents/disk.py",
    "node/documents/embedded.py",
    "node/documents/encryption.py",
    "node/documents/files.py",
    "node/documents/places.py",
    "node/documents/replica.py",
    "node/documents/service.py",
    "node/documents/wire.py",
    "node/documents/workers.py",
    "node/cli/*.py",
    "node/cli/groups/*.py",
)
WORLD_MODULES: Final = frozenset(
    {
        *("aiohttp", "asyncio", "concurrent", "http", "select", "socket", "ssl", "urllib", "uvloop"),
        *("fcntl", "glob", "io", "logging", "os", "pathlib", "plyvel", "shutil", "tempfile"),
        *("datetime", "locale", "multiprocessing", "signal", "subprocess", "sys", "threading", "time"),
        *("random", "secrets", "uuid"),
    }
)
WORLD_CALLS: Final = frozenset({"open", "print", "input", "exec", "eval", "breakpoint"})

# What every validator must compute alike: no floats here, whatever the reason.
EXACT: Final = ("ledger", "contracts_native", "consensus")

FILE_LINES_MAX: Final = 500
FUNCTION_LINES_MAX: Final = 60


def find_files(*packages: str) -> list[str]:
    """The Python files of these top-level directories, relative to the root."""
    return sorted(
        path.relative_to(ROOT).as_posix()
        for package in packages
        for path in (ROOT / package).rglob("*.py")
        if "__pycache__" not in path.parts
    )


@cache
def parse_file(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(), filename=file)


def find_imports(file: str) -> Iterator[str]:
    """Every module that a file imports, also inside functions; ``from a import b`` gives ``a`` and ``a.b``."""
    for node in ast.walk(parse_file(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are written in full"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_world(file: str) -> bool:
    return any(fnmatch(file, pattern) for pattern in WORLD)


def touches_world(file: str) -> Iterator[str]:
    """What a file does that is not a function of its inputs, as ``line: what``.

    A ``Random`` that the caller seeded is an input like any other, so its name may be imported, but not seeded here.
    """
    for node in ast.walk(parse_file(file)):
        if isinstance(node, ast.ImportFrom) and node.module == "random" and [a.name for a in node.names] == ["Random"]:
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for module in modules:
                if module.partition(".")[0] in WORLD_MODULES:
                    yield f"{node.lineno}: import {module}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in WORLD_CALLS:
            yield f"{node.lineno}: {node.func.id}()"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Random":
            yield f"{node.lineno}: Random()"
        elif isinstance(node, ast.Name) and node.id == "__import__":
            yield f"{node.lineno}: __import__"


def find_floats(file: str) -> Iterator[str]:
    """Every place where a float could be made, as ``line: what``."""
    for node in ast.walk(parse_file(file)):
        if isinstance(node, ast.Constant) and isinstance(node.value, float | complex):
            yield f"{node.lineno}: {node.value}"
        elif isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            yield f"{node.lineno}: division with /"
        elif isinstance(node, ast.Name) and node.id in ("float", "complex", "Decimal", "Fraction"):
            yield f"{node.lineno}: {node.id}"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
            if {"math", "statistics", "decimal", "fractions", "numpy"} & {str(name) for name in names}:
                yield f"{node.lineno}: import {names}"


@cache
def contracts_below(name: str) -> frozenset[str]:
    below = frozenset(CONTRACTS_BELOW[name])
    return below.union(*(contracts_below(other) for other in below))


def test_packages_import_downwards_only() -> None:
    wrong = [
        f"{file} imports {module}"
        for package in PACKAGES
        for file in find_files(package)
        for module in find_imports(file)
        if module.partition(".")[0] in {*PACKAGES, "tests"} - MAY_IMPORT[package] - {package}
    ]
    assert wrong == []


def test_consensus_knows_only_the_words_of_the_ledger() -> None:
    wrong = [
        f"{file} imports {module}"
        for file in find_files("consensus")
        for module in find_imports(file)
        if module.startswith("ledger") and ".".join(module.split(".")[:2]) not in CONSENSUS_MAY_USE
    ]
    assert wrong == []


def test_contracts_import_in_one_direction() -> None:
    for name in CONTRACTS_BELOW:
        assert name not in contracts_below(name), f"{name} stands below itself"
    uses = {
        Path(file).stem: {name.split(".")[1] for name in find_imports(file) if name.startswith("contracts_native.")}
        for file in find_files("contracts_native")
    }
    new_families = {name for name, used in uses.items() if name not in CONTRACTS_BELOW and used & set(CONTRACTS_BELOW)}
    wrong = [
        f"{name} imports {other}"
        for name, used in uses.items()
        if name not in CONTRACTS_ON_TOP
        for other in sorted(used & (set(CONTRACTS_BELOW) | new_families))
        if other in new_families or (name in CONTRACTS_BELOW and other not in contracts_below(name))
    ]
    assert wrong == []


def test_only_the_named_files_touch_the_world() -> None:
    wrong = [f"{file}:{what}" for file in find_files(*PACKAGES) if not is_world(file) for what in touches_world(file)]
    assert wrong == []


def test_every_file_named_for_the_world_touches_it() -> None:
    files = [file for file in find_files(*PACKAGES) if file in WORLD and not file.endswith("__main__.py")]
    assert files
    assert [file for file in files if not any(touches_world(file))] == []


@pytest.mark.parametrize("package", EXACT)
def test_what_validators_compute_alike_has_no_floats(package: str) -> None:
    assert [f"{file}:{what}" for file in find_files(package) for what in find_floats(file)] == []


@pytest.mark.parametrize("package", EXACT)
def test_what_validators_compute_alike_has_no_clock_disk_or_chance(package: str) -> None:
    assert [file for file in find_files(package) if is_world(file)] == []
    assert [f"{file}:{what}" for file in find_files(package) for what in touches_world(file)] == []
    assert [file for file in find_files(package) if "random" in find_imports(file)] == []


def test_every_file_says_at_its_top_what_it_owns() -> None:
    silent = [
        file
        for file in find_files(*CODE)
        if not ast.get_docstring(parse_file(file)) and (ROOT / file).read_text().strip()
    ]
    assert silent == []


def test_a_file_fits_a_sitting() -> None:
    long = [f"{file}: {n}" for file in find_files(*CODE) if (n := count_lines(file)) > FILE_LINES_MAX]
    assert long == []


def count_lines(file: str) -> int:
    return (ROOT / file).read_text().count("\n")


def test_a_function_fits_a_screen() -> None:
    long = [
        f"{file}:{node.lineno}: {node.name} has {lines} lines"
        for file in find_files(*CODE)
        for node in ast.walk(parse_file(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_the_checkers_have_no_exceptions() -> None:
    silenced = re.compile("# *(type: *igno" + "re|no" + "qa|ruff: *no" + "qa|pragma: *no co" + "ver|fmt: *o" + "ff)")
    found = [
        f"{file}:{number}"
        for file in find_files(*CODE)
        for number, line in enumerate((ROOT / file).read_text().splitlines(), start=1)
        if silenced.search(line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import time", ["1: import time"]),
        ("def f():\n    from os import environ", ["2: import os"]),
        ("import asyncio.events", ["1: import asyncio.events"]),
        ("open('x')", ["1: open()"]),
        ("from random import Random\nr = Random(7)", ["2: Random()"]),
        ("from random import randrange", ["1: import random"]),
        ("import hashlib\nopened = 1", []),
    ],
)
def test_the_scan_for_the_world_sees(code: str, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "parse_file", lambda _file: ast.parse(code))
    assert list(touches_world("any.py")) == said


@pytest.mark.parametrize("code", ["a = 1.5", "a = b / c", "a /= 2", "a = float(b)", "import math", "a = 1j"])
def test_the_scan_for_floats_sees(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "parse_file", lambda _file: ast.parse(code))
    assert len(list(find_floats("any.py"))) == 1
