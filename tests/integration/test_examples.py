"""Every program in examples/ runs to its end against a real node, as its own text says."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from node.testnet import Testnet, make_environment

ROOT: Final = Path(__file__).resolve().parents[2]
# The verifier takes two files and asks no node; tests/examples has its tests.
EXAMPLES: Final = sorted(path.name for path in (ROOT / "examples").glob("*.py") if path.name != "verify_certificate.py")
TIMEOUT_S: Final = 60


@pytest_asyncio.fixture
async def testnet(tmp_path: Path) -> AsyncIterator[Testnet]:
    net = Testnet.create(tmp_path / "net", validators=1, block_ms=50, base_port=0)
    try:
        await net.start()
        yield net
    finally:
        await net.stop()


@pytest.mark.parametrize("example", EXAMPLES)
async def test_an_example_runs(example: str, testnet: Testnet) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "examples" / example),
        testnet.get_url(0),
        str(testnet.get_key_path("utility").parent),
        stdout=PIPE,
        stderr=PIPE,
        env=make_environment() | {"PYTHONPATH": str(ROOT)},
    )
    async with asyncio.timeout(TIMEOUT_S):
        said, complaint = await process.communicate()
    assert process.returncode == 0, complaint.decode()
    assert said
