"""A small chain for the ledger's tests: four toy transactions over the real participants and the real genesis.

Owns keys from seeds, a store with its tree, and the signing of toy transactions; nothing of it knows the domain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import cast

from nacl.signing import SigningKey

from contracts_native.genesis import found
from contracts_native.participants import PARTICIPANTS, check_signers
from ledger.block import Header
from ledger.encoding import Plain
from ledger.errors import RuleViolated
from ledger.execution import Chain, Dropped, Executed, build_block
from ledger.fields import from_plain, to_plain
from ledger.genesis import (
    GenesisDocument,
    GenesisParticipant,
    GenesisValidator,
    compute_genesis_changes,
    make_genesis_header,
)
from ledger.parameters import PARAMETER_HISTORY, PARAMETERS, Parameters
from ledger.primitives import Address, PublicKey, Signature, compute_address
from ledger.receipt import Event, event
from ledger.state import State
from ledger.state_root import StateTree
from ledger.storage import TRANSACTION_IDS, MemoryStore
from ledger.tables import Table
from ledger.transaction import (
    ANYONE,
    Payload,
    Transaction,
    TransactionTable,
    TxContext,
    check_signatures,
    decode_transaction,
    make_body,
    make_table,
    sign_transaction,
    transaction,
)
from ledger.validators import PROTOCOL, VALIDATOR_HISTORY, VALIDATORS

CHAIN_ID = "toy-1"
START_MS = 1_700_000_000_000


@dataclass(frozen=True, slots=True)
class Note:
    """The one record of the toy state."""

    value: int
    height: int
    index: int


NOTES: Table[Note] = Table("ty", Note, missing="note_unknown")


@event("toy.noted")
@dataclass(frozen=True, slots=True)
class Noted(Event):
    """A note was written."""

    note: str
    value: int


@transaction("toy.note", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class WriteNote(Payload):
    """Write a note that does not exist yet."""

    name: str
    value: int

    def apply(self, state: State, tx: TxContext) -> None:
        if NOTES.find(state, self.name) is not None:
            raise RuleViolated("note_already_written", self.name)
        NOTES.put(state, self.name, value=Note(self.value, tx.block.height, tx.index))
        state.emit(Noted(self.name, self.value))


@transaction("toy.spoil", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class Spoil(Payload):
    """Write a note and an event, overwrite one, and refuse only then."""

    name: str

    def apply(self, state: State, tx: TxContext) -> None:
        NOTES.put(state, self.name, value=Note(1, tx.block.height, tx.index))
        NOTES.put(state, "spoiled", value=Note(2, tx.block.height, tx.index))
        NOTES.delete(state, "first")
        state.emit(Noted(self.name, 1))
        raise RuleViolated("note_spoiled", self.name)


@transaction("toy.watch", roles=("auditor",))
@dataclass(frozen=True, slots=True)
class Watch(Payload):
    """Only an auditor may send it."""

    def apply(self, state: State, tx: TxContext) -> None:
        state.emit(Noted("watched", tx.time_ms))


@transaction("toy.later", roles=ANYONE, since_version=2)
@dataclass(frozen=True, slots=True)
class Later(Payload):
    """Active from protocol version 2 on."""

    def apply(self, state: State, tx: TxContext) -> None:
        state.emit(Noted("later", tx.block.version))


def make_toy_table() -> TransactionTable:
    """The table of the toy transactions."""
    known = (NOTES, PARTICIPANTS, PARAMETERS, PARAMETER_HISTORY, VALIDATORS, VALIDATOR_HISTORY, PROTOCOL)
    tables = [cast("Table[object]", table) for table in known]
    payloads: list[type[Payload]] = [WriteNote, Spoil, Watch, Later]
    return make_table(payloads=payloads, events=[Noted], tables=tables, authorise=check_signers, found=found)


class Signer:
    """A key made from a name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._key = SigningKey(sha256(name.encode()).digest())
        self.public_key = PublicKey(bytes(self._key.verify_key))
        self.address: Address = compute_address(self.public_key)

    def sign(self, message: bytes) -> Signature:
        return Signature(self._key.sign(message).signature)


ALICE, BOB, WATCHER, STRANGER, PROPOSER = map(Signer, ("alice", "bob", "watcher", "stranger", "proposer"))
TABLE = make_toy_table()


def make_document(parameters: Parameters | None = None) -> GenesisDocument:
    """One validator; Alice and Bob are consumers, the watcher is an auditor, the stranger is nobody."""
    members = ((ALICE, "consumer"), (BOB, "consumer"), (WATCHER, "auditor"))
    return GenesisDocument(
        chain_id=CHAIN_ID,
        time_ms=START_MS,
        validators=(GenesisValidator(PROPOSER.public_key, "one"),),
        participants=tuple(GenesisParticipant(who.public_key, who.name, (role,), 0) for who, role in members),
        parameters=parameters or Parameters(),
    )


def write_tx(
    payload: Payload,
    by: Signer = ALICE,
    *,
    cosigners: Sequence[Signer] = (),
    valid_until: int = 100,
    salt: bytes = bytes(8),
    chain_id: str = CHAIN_ID,
) -> bytes:
    """The signed bytes of a transaction."""
    body = make_body(
        chain_id=chain_id,
        payload=payload,
        sender=by.address,
        valid_until=valid_until,
        salt=salt,
        cosigners=[who.address for who in cosigners],
    )
    return sign_transaction(body, [(who.public_key, who.sign) for who in (by, *cosigners)])


def change_header(header: Header, **changed: Plain) -> Header:
    """A header with some fields changed, by name."""
    values = dict(zip(Header.__slots__, cast("tuple[Plain, ...]", to_plain(header)), strict=True))
    assert values.keys() >= changed.keys()
    return from_plain(Header, tuple({**values, **changed}.values()))


def read_tx(raw: bytes) -> Transaction:
    """As a node admits it: form, then signatures."""
    tx = decode_transaction(raw, TABLE)
    check_signatures(tx)
    return tx


class ToyChain:
    """A store, a tree and the last header: one node without consensus."""

    def __init__(self, parameters: Parameters | None = None, table: TransactionTable = TABLE) -> None:
        self.table = table
        self.store = MemoryStore()
        self._buckets: dict[bytes, bytes] = {}
        self.tree = StateTree.load([], self)
        document = make_document(parameters)
        changes = compute_genesis_changes(document, table)
        update = self.tree.prepare(changes)
        self._write_buckets(update.bucket_writes)
        self.tree.apply(update)
        self.store.write(changes)
        validators_hash = VALIDATORS.get(self.state).compute_hash()
        self.parent: Header = make_genesis_header(document, state_root=update.root, validators_hash=validators_hash)

    def get_bucket(self, path: bytes) -> bytes | None:
        return self._buckets.get(path)

    @property
    def chain(self) -> Chain:
        return Chain(self.store, self.tree, self.parent, self.table)

    @property
    def state(self) -> State:
        return State(self.store)

    def build(self, *raws: bytes) -> tuple[Executed, tuple[Dropped, ...]]:
        """The next block of these transactions, half a second after its parent."""
        time_ms = self.parent.time_ms + 500
        return build_block(self.chain, map(read_tx, raws), time_ms=time_ms, proposer=PROPOSER.public_key)

    def commit(self, executed: Executed) -> None:
        """Make a block final."""
        self.store.write(executed.changes)
        height = executed.block.header.height
        self.store.write({TRANSACTION_IDS + tx.tx_id: b"%d" % height for tx in executed.transactions})
        self._write_buckets(executed.tree_update.bucket_writes)
        self.tree.apply(executed.tree_update)
        self.parent = executed.block.header

    def _write_buckets(self, writes: Mapping[bytes, bytes | None]) -> None:
        for path, content in writes.items():
            if content is None:
                self._buckets.pop(path, None)
            else:
                self._buckets[path] = content
