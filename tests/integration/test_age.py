"""The age command, which nobody here wrote, opens our documents, and its documents are opened here."""

from __future__ import annotations

import asyncio
import hashlib
import io
import shutil
from pathlib import Path

import pytest

from ledger.primitives import Address
from node.documents.encryption import decrypt_to, encrypt_to, make_key
from node.documents.grants import GrantPlace, compute_public_key, format_identity, open_grant, seal_grant
from tests.contracts_native.harness import UTILITY
from tests.node.test_cli_documents import PAPER, Desk

READER = hashlib.sha256(b"reader").digest()
PLACE = GrantPlace("wattprint-test", b"document", Address(bytes(20)))
CONTENT = hashlib.shake_128(b"content").digest(200_000)


@pytest.fixture
def age() -> str:
    """The path of the command."""
    path = shutil.which("age") or shutil.which("rage")
    if path is None:
        pytest.skip("neither age nor rage is installed")
    return path


async def run(*command: object) -> None:
    process = await asyncio.create_subprocess_exec(*map(str, command))
    assert await asyncio.wait_for(process.wait(), 30) == 0


async def test_the_age_command_opens_our_content_with_the_identity_that_a_grant_gives(tmp_path: Path, age: str) -> None:
    key = make_key()
    encrypt_to(tmp_path / "sealed", io.BytesIO(CONTENT), key)
    granted = open_grant(seal_grant(key, compute_public_key(READER), PLACE), READER, PLACE)
    (tmp_path / "identity").write_text(format_identity(granted) + "\n")
    await run(age, "-d", "-i", tmp_path / "identity", "-o", tmp_path / "plain", tmp_path / "sealed")
    assert (tmp_path / "plain").read_bytes() == CONTENT


async def test_what_the_age_command_encrypts_is_opened_here(tmp_path: Path, age: str) -> None:
    key = make_key()
    (tmp_path / "identity").write_text(format_identity(key) + "\n")
    (tmp_path / "plain").write_bytes(CONTENT)
    await run(age, "-e", "-i", tmp_path / "identity", "-o", tmp_path / "sealed", tmp_path / "plain")
    with (tmp_path / "sealed").open("rb") as file:
        decrypt_to(tmp_path / "again", file, key, size_max=len(CONTENT), commitment=None)
    assert (tmp_path / "again").read_bytes() == CONTENT


async def test_the_age_command_opens_what_the_command_line_takes_out(tmp_path: Path, age: str) -> None:
    """From end to end: a grant on a ledger gives the identity, a store gives the sealed content."""
    desk = Desk(tmp_path)
    await asyncio.to_thread(desk.ask, "document", "register-key", by=UTILITY)
    added = await asyncio.to_thread(desk.add, "--reader", desk.keys[UTILITY])
    take = ("document", "identity", added["document"], "-o", tmp_path / "identity")
    await asyncio.to_thread(lambda: desk.ask(*take, by=UTILITY))
    await asyncio.to_thread(desk.ask, "store", "get", added["cid"], "-o", tmp_path / "sealed")
    await run(age, "-d", "-i", tmp_path / "identity", "-o", tmp_path / "plain", tmp_path / "sealed")
    assert (tmp_path / "plain").read_bytes() == PAPER
