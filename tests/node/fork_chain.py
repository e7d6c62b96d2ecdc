"""Two branches of one chain, each block final by the signatures of a quorum: what the tests of forks stand on.

Four validators; a branch can be grown by any of them, in any round, and copied to part from itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from consensus.codec import encode_message
from consensus.messages import ChainContext, CommitCertificate, CommitSignature, Precommit, compute_signed_bytes
from contracts_native.table import load_table
from ledger.execution import build_block
from ledger.genesis import GenesisDocument, GenesisValidator, compute_genesis_hash
from ledger.parameters import Parameters
from ledger.primitives import Hash, Height, PublicKey
from ledger.state import State
from ledger.storage import CERTIFICATES, MemoryStore, Reader, format_height
from ledger.validators import Member, ValidatorRecord, set_validators
from node import chain_store
from node.index import compute_index_changes
from node.keystore import SigningKey

GENESIS_MS: Final = 1_700_000_000_000
KEYS: Final = tuple(SigningKey.from_seed(bytes([number]) * 32) for number in range(1, 9))
VALIDATORS: Final = KEYS[:4]
STRANGERS: Final = KEYS[4:]
DOCUMENT: Final = GenesisDocument(
    "forked",
    GENESIS_MS,
    tuple(GenesisValidator(key.public_key, f"v{number}") for number, key in enumerate(VALIDATORS)),
    (),
    Parameters(),
)
CONTEXT: Final = ChainContext(DOCUMENT.chain_id, compute_genesis_hash(DOCUMENT))


class Branch:
    """A chain in memory; ``signers`` are numbers of validators."""

    def __init__(self, reader: Reader | None = None) -> None:
        if reader is None:
            batch = chain_store.compute_genesis_batch(DOCUMENT, load_table())
            self.store = MemoryStore((key, value) for key, value in batch.items() if value is not None)
        else:
            self.store = MemoryStore(reader.scan(b"", b"\xff"))

    @property
    def height(self) -> int:
        return chain_store.read_head_height(self.store)

    def copy(self) -> Branch:
        """The same chain, to be grown otherwise."""
        return Branch(self.store)

    def grow(
        self, count: int = 1, *, signers: Iterable[int] = (0, 1, 2), round_: int = 0, step_ms: int = 500
    ) -> Branch:
        """Decide blocks; those of another ``step_ms`` are other blocks."""
        for _ in range(count):
            chain = chain_store.load_chain(self.store, load_table())
            time_ms = chain.parent.time_ms + step_ms
            executed, _ = build_block(chain, (), time_ms=time_ms, proposer=VALIDATORS[0].public_key)
            height = executed.block.header.height
            certificate = certify(height, executed.block_id, [KEYS[number] for number in signers], round_=round_)
            index_changes = compute_index_changes(self.store, executed.receipts, executed.block.header)
            self.store.write(chain_store.compute_block_batch(executed, certificate, index_changes))
        return self

    def certificate(self, height: int) -> CommitCertificate:
        certificate = chain_store.find_certificate(self.store, height)
        assert certificate is not None
        return certificate

    def block_id(self, height: int) -> Hash:
        return self.certificate(height).block_id

    def certify_again(self, height: int, certificate: CommitCertificate) -> Branch:
        """Put another certificate beside a block, true or not."""
        self.store.write({CERTIFICATES + format_height(height): encode_message(certificate)})
        return self

    def change_validators(self, keys: Iterable[SigningKey], *, from_height: int) -> None:
        """Let others decide from a height on, as a node that has executed such a change knows it."""
        state = State(self.store)
        record = ValidatorRecord(tuple(Member(key.public_key, f"n{number}") for number, key in enumerate(keys)))
        set_validators(state, record, from_height=from_height)
        self.store.write(state.compute_changes())


def certify(
    height: int,
    block_id: Hash,
    keys: Iterable[SigningKey],
    *,
    round_: int = 0,
    context: ChainContext = CONTEXT,
) -> CommitCertificate:
    """A certificate with the signatures of these keys, each as often as it is given."""
    signed = compute_signed_bytes(context, Precommit(Height(height), round_, block_id))
    signatures = tuple(CommitSignature(key.public_key, key.sign(signed)) for key in keys)
    return CommitCertificate(context.compute_hash(), Height(height), round_, block_id, signatures)


def name_keys(numbers: Iterable[int]) -> set[PublicKey]:
    return {KEYS[number].public_key for number in numbers}


def make_fork(*, common: int = 3, ours: int = 2, theirs: int = 2, round_: int = 0) -> tuple[Branch, Branch]:
    """Two branches that part after ``common`` blocks: signed by 0, 1, 2 and by 1, 2, 3."""
    trunk = Branch().grow(common)
    other = trunk.copy().grow(theirs, signers=(1, 2, 3), round_=round_, step_ms=501)
    return trunk.grow(ours), other
