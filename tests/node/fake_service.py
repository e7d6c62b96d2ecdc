"""A node in memory for tests of its door: one chain, one authority, a block whenever the test asks for one.

The ledger behind it is the real one; what is missing is consensus, peers and the disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from consensus.messages import CommitCertificate
from contracts_native.credits import IssueCredits, TransferCredits
from contracts_native.participants import Role
from contracts_native.table import load_table
from ledger.errors import NotAdmitted, Rejected
from ledger.execution import Chain, build_block, execute_transaction
from ledger.genesis import GenesisDocument, GenesisParticipant, GenesisValidator
from ledger.parameters import Parameters
from ledger.primitives import ZERO_HASH, Hash, Height
from ledger.receipt import Event
from ledger.state import State
from ledger.storage import MemoryStore, Reader
from ledger.transaction import (
    BlockContext,
    Payload,
    Transaction,
    TransactionTable,
    check_signatures,
    decode_transaction,
)
from node.chain_store import compute_block_batch, compute_genesis_batch, get_header, load_tree, read_head_height
from node.client_forms import SignedTransaction, sign_payload
from node.keystore import SigningKey
from node.mempool import Overloaded
from node.service import CommittedBlock, NodeStatus, Outcome, PeerStatus, Wait

CHAIN_ID: Final = "fake-1"
GENESIS_MS: Final = 1_700_000_000_000
BLOCK_MS: Final = 500
UTILITY: Final = SigningKey.from_seed(b"u" * 32)
ALICE: Final = SigningKey.from_seed(b"a" * 32)
BOB: Final = SigningKey.from_seed(b"b" * 32)
VALIDATOR: Final = SigningKey.from_seed(b"v" * 32)


def make_fake_genesis() -> GenesisDocument:
    """One authority, a utility that issues credits, two consumers."""
    members = (
        (UTILITY, "Utility", Role.UTILITY, 10**9),
        (ALICE, "Alice", Role.CONSUMER, 0),
        (BOB, "Bob", Role.CONSUMER, 0),
    )
    return GenesisDocument(
        chain_id=CHAIN_ID,
        time_ms=GENESIS_MS,
        validators=(GenesisValidator(VALIDATOR.public_key, "alpha"),),
        participants=tuple(
            GenesisParticipant(key.public_key, label, (str(role),), limit) for key, label, role, limit in members
        ),
        parameters=Parameters(),
    )


class FakeService:
    """A ``NodeService``. With ``commits`` every submission makes its block; otherwise ``commit`` does."""

    def __init__(self, *, commits: bool = True) -> None:
        self.store = MemoryStore(
            (key, value)
            for key, value in compute_genesis_batch(make_fake_genesis(), load_table()).items()
            if value is not None
        )
        self.commits = commits
        self.is_syncing = False
        self.peers: tuple[PeerStatus, ...] = ()
        self.refusal: Exception | None = None  # what the next call meets instead
        self.pending: dict[Hash, Transaction] = {}
        self.dropped: dict[Hash, Rejected] = {}
        self.subscribers: list[Callable[[CommittedBlock], None]] = []
        self.submissions = 0
        self._committed: dict[Hash, Outcome] = {}

    @property
    def reader(self) -> Reader:
        return self.store

    @property
    def table(self) -> TransactionTable:
        return load_table()

    @property
    def tree(self) -> None:
        return None

    def get_status(self) -> NodeStatus:
        return NodeStatus(
            moniker="fake",
            version="0.0.0",
            public_key=VALIDATOR.public_key,
            is_validator=True,
            is_syncing=self.is_syncing,
            round=0,
            peers=self.peers,
            mempool_transactions=len(self.pending),
            mempool_bytes=sum(len(tx.raw) for tx in self.pending.values()),
            counters={"blocks": read_head_height(self.store), "clock_skew_ms": -3},
        )

    async def submit(self, raws: Sequence[bytes], *, wait: Wait, timeout_ms: int) -> list[Outcome]:
        self.submissions += 1
        if self.refusal is not None:
            raise self.refusal
        admitted = [self._admit(raw) for raw in raws]
        if self.commits and self.pending:
            self.commit()
        if wait is Wait.ADMITTED:
            return admitted
        assert timeout_ms >= 0
        return [one if one.tx_id is None else self._look_up(one.tx_id) for one in admitted]

    def simulate(self, raw: bytes) -> tuple[Event, ...]:
        return self._check(raw)[1]

    def find_pending(self, tx_id: Hash) -> Transaction | None:
        return self.pending.get(tx_id)

    def list_pending(self, limit: int, *, after: int = 0) -> list[tuple[int, Transaction]]:
        return list(enumerate(self.pending.values(), 1))[after : after + limit]

    def find_dropped(self, tx_id: Hash) -> Rejected | None:
        return self.dropped.get(tx_id)

    def subscribe(self, callback: Callable[[CommittedBlock], None]) -> Callable[[], None]:
        self.subscribers.append(callback)
        return lambda: self.subscribers.remove(callback)

    def drop(self, tx_id: Hash, error: Rejected) -> None:
        """A pending transaction leaves without being committed."""
        del self.pending[tx_id]
        self.dropped[tx_id] = error

    def commit(self) -> CommittedBlock:
        """Make the next block of all that is pending, store it, and tell everybody."""
        chain = self._get_chain()
        time_ms = chain.parent.time_ms + BLOCK_MS
        executed, _ = build_block(chain, self.pending.values(), time_ms=time_ms, proposer=VALIDATOR.public_key)
        header = executed.block.header
        certificate = CommitCertificate(Hash(ZERO_HASH), Height(header.height), 0, executed.block_id, ())
        self.store.write(compute_block_batch(executed, certificate, {}))
        self.pending.clear()
        events = tuple(receipt.events for receipt in executed.receipts)
        for index, receipt in enumerate(executed.receipts):
            self._committed[receipt.tx_id] = Outcome(receipt.tx_id, None, header.height, index, receipt.events)
        block = CommittedBlock(header.height, executed.block_id, time_ms, executed.transactions, events)
        for callback in list(self.subscribers):
            callback(block)
        return block

    def _get_chain(self) -> Chain:
        parent = get_header(self.store, read_head_height(self.store))
        return Chain(self.store, load_tree(self.store), parent, self.table)

    def _admit(self, raw: bytes) -> Outcome:
        try:
            tx, _ = self._check(raw)
        except Rejected as error:
            return Outcome(None, error)
        self.pending[tx.tx_id] = tx
        return Outcome(tx.tx_id)

    def _look_up(self, tx_id: Hash) -> Outcome:
        """What a waiter hears: a block comes at once or, for this waiter, never."""
        return self._committed.get(tx_id, Outcome(tx_id, timed_out=True))

    def _check(self, raw: bytes) -> tuple[Transaction, tuple[Event, ...]]:
        tx = decode_transaction(raw, self.table)
        check_signatures(tx)
        if tx.tx_id in self.pending:
            raise NotAdmitted("transaction_already_pending", tx.tx_id.hex())
        if len(self.pending) >= 3:
            raise Overloaded("mempool_full", "3 transactions")
        parent = self._get_chain().parent
        context = BlockContext(CHAIN_ID, parent.height + 1, parent.time_ms + 1, parent.version)
        return tx, execute_transaction(State(self.store), tx, self.table, context, index=0)


def sign_fake(payload: Payload, signer: SigningKey, *, salt: int = 0, valid_until: int = 100) -> SignedTransaction:
    """A signed transaction for the fake chain."""
    return sign_payload(
        payload, chain_id=CHAIN_ID, valid_until=valid_until, salt=salt.to_bytes(8, "big"), signer=signer
    )


def make_issue(reference: str, cents: int = 1_000) -> IssueCredits:
    """The utility credits Alice."""
    return IssueCredits(ALICE.address, cents, reference)


def make_transfer(cents: int) -> TransferCredits:
    """Alice pays Bob."""
    return TransferCredits(BOB.address, cents, "")
