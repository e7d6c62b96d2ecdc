"""``wattprint document`` and ``wattprint store``: a paper's whole life from the command line, and every way to fail."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from rich.console import Console

from node.cli import stores
from node.cli.options import Common
from node.documents.car import encode_block
from node.documents.chunking import Layout, build_blocks
from node.documents.embedded import EmbeddedStore
from node.documents.encryption import decrypt_to
from node.documents.grants import parse_identity
from tests.contracts_native.harness import ALICE, BOB, RIVAL, UTILITY, Person
from tests.node.chain_node import ChainNode, save_key
from tests.node.documents.samples import make_content
from tests.node.fake_node import FakeNode
from tests.node.query_answers import text

PAPER = b"Passport of Bob Example, born 1970-01-01"
EMPTY_CID = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"  # of no bytes, known everywhere


class Desk:
    """A directory with key files, a store and a paper, and a node with a chain."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.node = ChainNode()
        self.store = directory / "store"
        EmbeddedStore(self.store)
        self.paper = directory / "passport-of-bob.pdf"
        self.paper.write_bytes(PAPER)
        self.keys = {person: save_key(directory, person) for person in (ALICE, BOB, UTILITY, RIVAL)}

    def run(self, *words: object, by: Person | None = None, store: object = None) -> Result:
        key = () if by is None else ("--key", self.keys[by])
        return self.node.run(*words, *key, env={"WATTPRINT_STORE": str(store or self.store)})

    def ask(self, *words: object, by: Person | None = None, store: object = None) -> Any:
        key = () if by is None else ("--key", self.keys[by])
        return self.node.run_json(*words, *key, env={"WATTPRINT_STORE": str(store or self.store)})

    def add(self, *words: object) -> Any:
        return self.ask("document", "add", self.paper, "--kind", "kyc", *words, by=BOB)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """The utility has registered its encryption key."""
    one = Desk(tmp_path)
    one.ask("document", "register-key", by=UTILITY)
    return one


def test_a_papers_whole_life(desk: Desk) -> None:
    added = desk.add("--reader", desk.keys[UTILITY])
    document = added["document"]
    assert (added["version"], added["readers"]) == (1, [text(BOB), text(UTILITY)])
    output = desk.directory / "paper.pdf"
    got = desk.ask("document", "get", document, "-o", output, by=UTILITY)
    assert output.read_bytes() == PAPER
    assert got == {"document": document, "version": 1, "file": str(output), "size_bytes": len(PAPER)}
    shown = desk.ask("document", "show", document)
    assert (shown["subject"], shown["kind"], shown["cid"]) == (text(BOB), "kyc", added["cid"])
    (row,) = desk.ask("document", "list", "--reader", desk.keys[UTILITY])["documents"]
    assert row["document"] == document
    assert desk.ask("document", "verify", document, by=UTILITY)["content_is"] == "as committed"
    for nobody in (RIVAL, None):
        assert "no key" in desk.ask("document", "verify", document, by=nobody)["content_is"]
    refused = desk.run("document", "get", document, "-o", desk.directory / "stolen", by=RIVAL)
    assert (refused.exit_code, "reader_not_granted" in refused.stderr) == (1, True)
    desk.ask("document", "revoke", document, "--reader", text(UTILITY), by=BOB)
    assert desk.run("document", "get", document, "-o", desk.directory / "again", by=UTILITY).exit_code == 1
    desk.ask("document", "grant", document, "--reader", text(UTILITY), by=BOB)
    desk.paper.write_bytes(b"newer")
    newer = desk.ask("document", "add", desk.paper, "--supersedes", document, by=BOB)
    assert (newer["document"], newer["version"]) == (document, 2)
    desk.ask("document", "get", document, "-o", desk.directory / "new", by=UTILITY)
    assert (desk.directory / "new").read_bytes() == b"newer"
    desk.ask("document", "get", document, "--version", 1, "-o", desk.directory / "old", by=UTILITY)
    assert (desk.directory / "old").read_bytes() == PAPER
    desk.ask("document", "retire", document, by=BOB)
    assert desk.ask("store", "list") == {"pins": []}
    assert desk.ask("store", "gc")["blocks_removed"] == 2
    assert desk.run("document", "get", document, "-o", desk.directory / "late", by=BOB).exit_code == 1


def test_a_design_is_about_a_site(desk: Desk) -> None:
    site = desk.node.chain.register_site(ALICE).hex()
    words = ("document", "add", desk.paper, "--kind", "site_design", "--site", site)
    document = desk.ask(*words, by=ALICE)["document"]
    assert desk.ask("document", "list", "--site", site)["documents"][0]["document"] == document
    stranger = desk.run(*words, by=RIVAL)
    assert (stranger.exit_code, "site_of_another" in stranger.stderr) == (1, True)


def test_a_document_is_carried_to_another_store_by_hand(desk: Desk) -> None:
    desk.paper.write_bytes(make_content(600_000))
    added = desk.add("--reader", text(UTILITY))
    archive, elsewhere = desk.directory / "paper.car", desk.directory / "elsewhere"
    desk.ask("store", "export", added["cid"], archive)
    get = ("document", "get", added["document"], "-o", desk.directory / "there")
    missing = desk.run(*get, by=UTILITY, store=elsewhere)
    assert (missing.exit_code, "store_absent" in missing.stderr, elsewhere.exists()) == (2, True, False)
    EmbeddedStore(elsewhere)
    empty = desk.run(*get, by=UTILITY, store=elsewhere)
    assert (empty.exit_code, f"block_absent: {added['cid']} is not in {elsewhere}" in empty.stderr) == (2, True)
    assert desk.ask("store", "import", archive, store=elsewhere)["cid"] == added["cid"]
    desk.ask(*get, by=UTILITY, store=elsewhere)
    assert (desk.directory / "there").read_bytes() == make_content(600_000)
    assert desk.run("store", "export", added["cid"], archive).exit_code == 2, "nothing is replaced"
    raw = archive.read_bytes()
    archive.write_bytes(raw[:-9])
    broken = desk.run("store", "import", archive, store=desk.directory / "third")
    assert (broken.exit_code, "car_malformed" in broken.stderr) == (2, True)
    assert desk.ask("store", "status", store=desk.directory / "third")["pins"] == 0


def test_a_store_moves_with_its_cids(desk: Desk) -> None:
    cids = sorted(desk.add()["cid"] for _ in range(3))
    other = desk.directory / "other"
    assert sorted(desk.ask("store", "migrate", "--to", other)["cids"]) == cids
    assert sorted(row["cid"] for row in desk.ask("store", "list", store=other)["pins"]) == cids
    status = desk.ask("store", "status", store=other)
    assert (status["kind"], status["pins"]) == ("embedded", 3)
    desk.ask("store", "unpin", cids[0], store=other)
    desk.ask("store", "pin", cids[0], store=other)
    desk.ask("store", "unpin", cids[0], store=other)
    assert desk.ask("store", "gc", store=other)["blocks_removed"] == 1


def test_the_cid_of_a_file_is_that_of_ipfs_and_nothing_is_stored(tmp_path: Path) -> None:
    node, file = FakeNode(), tmp_path / "empty"
    file.write_bytes(b"")
    home = {"WATTPRINT_HOME": str(tmp_path / "home")}
    assert node.run_json("store", "cid", file, env=home) == {"cid": EMPTY_CID, "size_bytes": 0}
    assert node.run("store", "cid", file, env=home).stdout == EMPTY_CID + "\n"
    assert not (tmp_path / "home").exists()


def test_the_store_of_a_home_needs_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = {"WATTPRINT_HOME": str(tmp_path / "home"), "WATTPRINT_STORE": None}
    FakeNode().run_json("store", "status", env=home)
    assert (tmp_path / "home" / "documents" / "blocks").is_dir()
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    monkeypatch.delenv("WATTPRINT_HOME", raising=False)
    store = stores.open_store(None)
    assert isinstance(store, EmbeddedStore)
    assert (tmp_path / "person" / ".wattprint" / "documents" / "blocks").is_dir()


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        (["get", "zz", "-o", "x"], 2, "hex"),
        (["get", bytes(16).hex(), "-o", "x"], 1, "document_not_found"),
        (["get", bytes(16).hex()], 2, "--output"),
        (["add", "PAPER"], 2, "Give --kind"),
        (["add", "PAPER", "--kind", "kyc", "--supersedes", bytes(16).hex()], 2, "Give --kind"),
        (["add", "PAPER", "--kind", "diary"], 2, "diary"),
        (["add", "PAPER", "--kind", "site_design"], 1, "document_subject_of_wrong_kind"),
        (["add", "PAPER", "--kind", "kyc", "--reader", text(RIVAL)], 2, "encryption_key_missing"),
        (["add", "PAPER", "--kind", "kyc", "--subject", text(ALICE)], 1, "subject_of_another"),
        (["add", "nowhere.pdf", "--kind", "kyc"], 2, "nowhere.pdf"),
        (["add", "PAPER", "--supersedes", bytes(16).hex()], 1, "document_not_found"),
        (["grant", bytes(16).hex()], 2, "--reader"),
        (["revoke", bytes(16).hex(), "--reader", text(RIVAL)], 1, "document_unknown"),
        (["retire", bytes(16).hex()], 1, "document_not_found"),
        (["register-key", "--node", "x"], 0, ""),
    ],
)
def test_a_mistake_is_one_line_and_its_status(desk: Desk, words: list[str], status: int, reason: str) -> None:
    named = [str(desk.paper) if word == "PAPER" else word for word in words]
    result = desk.run("document", *named, by=BOB)
    assert (result.exit_code, reason in result.stderr) == (status, True), result.output
    assert result.stderr.count("\n") == (1 if status else 0)
    assert not (desk.directory / "x").exists()


def test_a_document_needs_a_key_and_a_daemon_that_answers(desk: Desk) -> None:
    assert "--key" in desk.run("document", "get", bytes(16).hex(), "-o", "x").stderr
    down = desk.run("document", "add", desk.paper, "--kind", "kyc", by=BOB, store="/ip4/127.0.0.1/tcp/1")
    assert (down.exit_code, "store_unreachable" in down.stderr) == (2, True)
    assert not [tx for tx in desk.node.submitted if tx.tag == "document.anchor"]
    wrong = desk.run("store", "status", store="/ip4/nonsense")
    assert (wrong.exit_code, "store_address_invalid" in wrong.stderr) == (2, True)
    for bad in ("/ipfs/" + EMPTY_CID, EMPTY_CID.upper(), "Qm", hashlib.sha256(b"").hexdigest()):
        refused = desk.run("store", "pin", bad)
        assert (refused.exit_code, "cid_invalid" in refused.stderr) == (2, True)


def test_what_is_no_file_is_refused_and_never_waited_for(desk: Desk) -> None:
    pipe = desk.directory / "pipe"
    os.mkfifo(pipe)
    for words in (("document", "add", pipe, "--kind", "kyc"), ("store", "cid", pipe), ("store", "import", pipe)):
        refused = desk.run(*words, by=BOB if words[0] == "document" else None)
        assert (refused.exit_code, f"file_not_regular: {pipe}" in refused.stderr) == (2, True)
    huge = desk.directory / "huge"
    with huge.open("wb") as file:
        file.truncate(5 * 1024**3)
    for words in (("document", "add", huge, "--kind", "kyc"), ("store", "cid", huge)):
        refused = desk.run(*words, by=BOB if words[0] == "document" else None)
        assert (refused.exit_code, "document_too_large" in refused.stderr) == (1, True)


def test_a_file_is_named_as_its_owner_knows_it_and_never_replaced(desk: Desk) -> None:
    added = desk.add()
    for words in (("document", "get", added["document"]), ("document", "identity", added["document"])):
        exists = desk.run(*words, "-o", desk.paper, by=BOB)
        assert (exists.exit_code, exists.stderr) == (
            2,
            f"wattprint: file_exists: {desk.paper}: it is not replaced\n",
        )
        nowhere = desk.run(*words, "-o", desk.directory / "nowhere" / "paper", by=BOB)
        assert (nowhere.exit_code, nowhere.stderr) == (
            2,
            f"wattprint: directory_missing: {desk.directory / 'nowhere'}\n",
        )
    assert desk.paper.read_bytes() == PAPER


def test_what_only_reads_makes_no_store_and_nothing_makes_one_among_other_things(desk: Desk) -> None:
    absent = desk.directory / "abesnt"
    cid = desk.add()["cid"]
    reading = (("status",), ("list",), ("gc",), ("pin", cid), ("unpin", cid), ("get", cid, "-o", desk.directory / "x"))
    for words in (*reading, ("export", cid, desk.directory / "x"), ("migrate", "--to", desk.directory / "y")):
        refused = desk.run("store", *words, store=absent)
        assert (refused.exit_code, refused.stderr) == (2, f"wattprint: store_absent: {absent} does not exist\n"), words
    for document_words in (("add", desk.paper, "--kind", "kyc"), ("verify", bytes(16).hex())):
        refused = desk.run("document", *document_words, by=BOB, store=desk.directory)
        assert (refused.exit_code, "store_directory_foreign" in refused.stderr) == (2, True)
    empty = desk.run("store", "status", "--store", "")
    assert (empty.exit_code, "store_address_invalid" in empty.stderr) == (2, True)
    assert not absent.exists()
    assert not (desk.directory / "blocks").exists()


def test_an_archive_of_another_version_of_cids_is_refused_and_the_store_is_well(desk: Desk) -> None:
    blocks = list(build_blocks(io.BytesIO(b"hello"), size_max=5, layout=Layout(raw_leaves=False, cid_version=0)))
    name, archive = bytes(blocks[-1].cid), desk.directory / "old.car"
    header = b"\xa2\x65roots\x81\xd8\x2a\x58" + bytes((len(name) + 1,)) + b"\0" + name + b"\x67version\x01"
    archive.write_bytes(bytes((len(header),)) + header + encode_block(blocks[-1]))
    refused = desk.run("store", "import", archive)
    assert (refused.exit_code, "cid_invalid" in refused.stderr) == (2, True)
    assert desk.ask("store", "status")["pins"] == 0


def test_a_reader_takes_the_sealed_content_and_its_key_out_and_a_stranger_does_not(desk: Desk) -> None:
    added = desk.add("--reader", desk.keys[UTILITY])
    sealed, key_file = desk.directory / "sealed", desk.directory / "identity"
    assert desk.ask("store", "get", added["cid"], "-o", sealed)["size_bytes"] == added["size_bytes"]
    assert sealed.read_bytes().startswith(b"age-encryption.org/v1\n")
    desk.ask("document", "identity", added["document"], "-o", key_file, by=UTILITY)
    assert key_file.stat().st_mode & 0o777 == 0o600
    key = parse_identity(key_file.read_text().strip())
    with sealed.open("rb") as file:
        decrypt_to(desk.directory / "plain", file, key, size_max=1_000, commitment=None)
    assert (desk.directory / "plain").read_bytes() == PAPER
    stranger = desk.run("document", "identity", added["document"], "-o", desk.directory / "stolen", by=RIVAL)
    assert (stranger.exit_code, "reader_not_granted" in stranger.stderr) == (1, True)
    assert not (desk.directory / "stolen").exists()


def test_a_large_file_has_a_bar_on_a_screen_and_a_small_one_none(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(stores, "Console", lambda **_: Console(file=screen, force_terminal=True, width=80))
    with stores.show_progress(Common(as_json=False)) as report:
        report("storing", 1_000, 1_000)
        report("reading", 3_000_000, 50_000_000)
        report("reading", 50_000_000, 50_000_000)
    assert "50.0/50.0 MB" in screen.getvalue()
    assert "storing" not in screen.getvalue()
    with stores.show_count(Common(as_json=False), "documents", 2) as advance:
        advance()
        advance()
    assert "2/2" in screen.getvalue()
    shown = len(screen.getvalue())
    with stores.show_progress(Common(as_json=True)) as report:
        report("reading", 3_000_000, 50_000_000)
    assert len(screen.getvalue()) == shown
