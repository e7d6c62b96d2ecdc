"""Private papers: a KYC paper is added, read, decided on and withdrawn; the design of a plant goes to the auditor.

Touches the world (files of the papers, the encrypted store beside the nodes). What is compared is read back from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from contracts_native.documents import DocumentKind, GrantDocument, WrappedKey
from contracts_native.kyc import Citation, DecideKyc, KycDecision
from ledger.errors import NotPermitted
from node.demo.network import Order
from node.demo.people import Person
from node.demo.stage import Stage
from node.documents.embedded import EmbeddedStore
from node.documents.grants import compute_public_key
from node.documents.service import About, Documents
from node.keystore import SigningKey

STORE_DIRECTORY: Final = "documents"
PAPERS_DIRECTORY: Final = "papers"
PAPER: Final = b"Identity card of a resident of the village, which only an officer of the utility may see. "
PAPER_REPEATS: Final = 4_000  # 360 kB, as a scan has: more than one block
DESIGN: Final = b"Site design: the roof's modules, strings, inverters and their protection. "
STEPS: Final = 7


@dataclass(frozen=True, slots=True)
class _Desk:
    """A store, a directory for papers in clear, and four who work with them."""

    store: EmbeddedStore
    papers: Path
    household: Documents
    officer: Documents
    auditor: Documents
    owner: Documents
    stranger: Documents

    def write(self, name: str, content: bytes) -> Path:
        """A paper as its owner has it."""
        path = self.papers / name
        path.write_bytes(content)
        return path

    async def read(self, reader: Documents, document: bytes, name: str) -> bytes | str:
        """What a reader gets of a document: its content, or the reason for which it gets none."""
        path = self.papers / name
        try:
            await reader.get(self.store, document, path)
        except NotPermitted as error:
            return error.reason
        return path.read_bytes()


async def exchange(stage: Stage) -> None:
    """What is private stays so: who is granted reads it, who is not does not, and the ledger knows what was decided."""
    household, owner = stage.pick_household(), stage.pick_producer()
    stranger = next(one for one in stage.cast.consumers if one is not household)
    with _open_desk(stage, household, owner, stranger) as desk, stage.narrator.step("Private papers", STEPS) as step:
        await desk.officer.register_key()
        await desk.auditor.register_key()
        step.advance()
        paper = desk.write("paper of the household", PAPER * PAPER_REPEATS)
        about = About(DocumentKind.KYC, household.address)
        added = await desk.household.add(desk.store, paper, about, readers=[stage.cast.utility.address])
        step.advance()
        await _compare_readers(stage, desk, added.document, stranger)
        step.advance()
        decision = DecideKyc(household.address, KycDecision.APPROVED, Citation(added.document, added.version))
        await stage.network.submit(Order(decision, stage.cast.utility))
        answer = await stage.network.ask().participant_get(household.address_text)
        stage.checks.compare("KYC of the household, decided on its paper", answer["kyc"], "approved")
        cited = answer["kyc_record"]["citation"]
        decided_on = f"{cited['document']} version {cited['version']}"
        stage.checks.compare("the paper that was decided on", decided_on, f"{added.document.hex()} version 1")
        step.advance()
        await desk.household.revoke(added.document, stage.cast.utility.address)
        withdrawn = await desk.read(desk.officer, added.document, "after withdrawal")
        stage.checks.compare("a withdrawn paper, asked for again", _name(withdrawn), "reader_not_granted")
        step.advance()
        await _show_design(stage, desk, owner)
        step.advance()
        pins = len(desk.store.list_pins())
        stage.checks.compare("documents in the store, each verified block by block", pins, 2)
        step.advance()
        step.text = (
            f"{household.place.label}'s KYC paper of {len(PAPER) * PAPER_REPEATS:,} bytes, encrypted, is read by the "
            "utility, decided on and withdrawn; a stranger is refused; the auditor reads a plant's design"
        )


async def _compare_readers(stage: Stage, desk: _Desk, document: bytes, stranger: Person) -> None:
    """The officer reads what was written; a stranger neither reads it nor lets itself in."""
    read = await desk.read(desk.officer, document, "as the officer reads it")
    is_same = int(read == PAPER * PAPER_REPEATS)
    stage.checks.compare("papers that the officer reads as they were written", is_same, 1)
    refused = await desk.read(desk.stranger, document, "as a stranger reads it")
    stage.checks.compare("a paper, asked for by a stranger", _name(refused), "reader_not_granted")
    await desk.stranger.register_key()
    mine = compute_public_key(stranger.key.derive_encryption_key())
    forged = GrantDocument(document, 1, (WrappedKey(stranger.address, mine, bytes(80)),))
    await stage.try_in_vain(
        "a stranger grants itself a paper", Order(forged, stranger.key), reason="document_of_another"
    )


async def _show_design(stage: Stage, desk: _Desk, owner: Person) -> None:
    """The design document of a plant, anchored by its owner, read by the auditor."""
    site = bytes.fromhex(stage.site_ids[owner.place.name])
    design = desk.write("design of the plant", DESIGN)
    about = About(DocumentKind.SITE_DESIGN, site=site)
    added = await desk.owner.add(desk.store, design, about, readers=[desk.auditor.address])
    read = await desk.read(desk.auditor, added.document, "as the auditor reads it")
    stage.checks.compare("designs that the auditor reads as they were written", int(read == DESIGN), 1)


def _name(read: bytes | str) -> str:
    return read if isinstance(read, str) else "read"


@contextmanager
def _open_desk(stage: Stage, household: Person, owner: Person, stranger: Person) -> Iterator[_Desk]:
    papers = stage.testnet.directory / PAPERS_DIRECTORY
    papers.mkdir(mode=0o700)
    with ExitStack() as stack:

        def open_documents(key: SigningKey) -> Documents:
            return stack.enter_context(closing(Documents(stage.network.ask(), key, scratch=papers)))

        yield _Desk(
            EmbeddedStore(stage.testnet.directory / STORE_DIRECTORY),
            papers,
            household=open_documents(household.key),
            officer=open_documents(stage.cast.utility),
            auditor=open_documents(stage.testnet.load_key("auditor")),
            owner=open_documents(owner.key),
            stranger=open_documents(stranger.key),
        )
