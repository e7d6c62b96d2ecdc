"""A chain of real blocks without consensus, for the rules of governance: authorities sign and take turns proposing.

Keys follow from names. A block holds what applied; a refusal is an assertion on its reason.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from contracts_native.governance import (
    PROPOSALS,
    ParameterChange,
    Proposal,
    ProposalStatus,
    Propose,
    ShowReadiness,
    Vote,
)
from contracts_native.table import load_table
from ledger.block import Header, compute_block_id
from ledger.execution import Chain, build_block, execute_block
from ledger.genesis import GenesisDocument, GenesisValidator, compute_genesis_changes, make_genesis_header
from ledger.parameters import Parameters
from ledger.primitives import Hash
from ledger.receipt import Event
from ledger.state import State
from ledger.state_root import StateTree
from ledger.storage import TRANSACTION_IDS, MemoryStore
from ledger.transaction import Payload, Transaction, check_signatures, decode_transaction, make_body, sign_transaction
from ledger.validators import VALIDATORS
from tests.contracts_native.harness import Person, make_person

CHAIN_ID: Final = "council-1"
START_MS: Final = 1_750_000_000_000
BLOCK_MS: Final = 1_000


class Council:
    """A chain whose authorities are named ``v0``, ``v1``, … Every block is executed once more as a voter does."""

    def __init__(self, count: int = 4, *, version_max: int = 1) -> None:
        self.table = replace(load_table(), version_max=version_max)
        self.members = [make_person(f"v{i}") for i in range(count)]
        validators = tuple(GenesisValidator(one.public_key, one.name) for one in self.members)
        document = GenesisDocument(CHAIN_ID, START_MS, validators, (), Parameters())
        self.store = MemoryStore()
        self._buckets: dict[bytes, bytes] = {}
        self.tree = StateTree.load([], self)
        changes = compute_genesis_changes(document, self.table)
        update = self.tree.prepare(changes)
        self._keep(update.bucket_writes)
        self.tree.apply(update)
        self.store.write(changes)
        set_hash = VALIDATORS.get(self.state).compute_hash()
        self.parent: Header = make_genesis_header(document, state_root=update.root, validators_hash=set_hash)
        self._salt = 0

    def get_bucket(self, path: bytes) -> bytes | None:
        return self._buckets.get(path)

    @property
    def state(self) -> State:
        return State(self.store)

    @property
    def height(self) -> int:
        return self.parent.height

    def sign(self, payload: Payload, by: Person, *, cosigner: Person | None = None) -> Transaction:
        """A signed transaction, through its bytes."""
        self._salt += 1
        cosigners = [] if cosigner is None else [cosigner]
        body = make_body(
            chain_id=CHAIN_ID,
            payload=payload,
            sender=by.address,
            valid_until=self.height + 100,
            salt=self._salt.to_bytes(8, "big"),
            cosigners=[one.address for one in cosigners],
        )
        signers = [(one.public_key, one.sign) for one in (by, *cosigners)]
        tx = decode_transaction(sign_transaction(body, signers), self.table)
        check_signatures(tx)
        return tx

    def block(
        self, *transactions: Transaction, proposer: Person | None = None, after_ms: int = BLOCK_MS
    ) -> tuple[tuple[Event, ...], list[str]]:
        """Commit a block; its events, and the reasons of what was refused. By default the members take turns."""
        record = VALIDATORS.get(self.state).members
        in_turn = record[(self.height + 1) % len(record)].public_key
        chain = Chain(self.store, self.tree, self.parent, self.table)
        executed, dropped = build_block(
            chain,
            transactions,
            time_ms=self.parent.time_ms + after_ms,
            proposer=in_turn if proposer is None else proposer.public_key,
        )
        again = execute_block(chain, executed.block, executed.body, find_known=lambda _: None)
        assert (again.block_id, again.changes) == (executed.block_id, executed.changes)
        self.store.write(executed.changes)
        self.store.write({TRANSACTION_IDS + tx.tx_id: b"" for tx in executed.transactions})
        self._keep(executed.tree_update.bucket_writes)
        self.tree.apply(executed.tree_update)
        self.parent = executed.block.header
        events = tuple(one for receipt in executed.receipts for one in receipt.events)
        return events, [one.error.reason for one in dropped]

    def apply(self, payload: Payload, by: Person) -> tuple[Event, ...]:
        """Commit a block with this transaction alone."""
        events, refused = self.block(self.sign(payload, by))
        assert refused == []
        return events

    def refuses(self, payload: Payload, reason: str, by: Person) -> None:
        """The payload is refused for this reason; an empty block is committed."""
        assert self.block(self.sign(payload, by))[1] == [reason]

    def run_to(self, height: int, *, without: Person | None = None) -> None:
        """Empty blocks up to a height; who is left out never proposes."""
        while self.height < height:
            record = VALIDATORS.get(self.state).members
            turns = [record[(self.height + 1 + i) % len(record)] for i in range(2)]
            turn = turns[without is not None and turns[0].public_key == without.public_key]
            self.block(proposer=make_person(turn.moniker))

    def propose(self, change: Propose, by: int = 0) -> bytes:
        """Commit a proposal; its id."""
        tx = self.sign(change, self.members[by])
        assert self.block(tx)[1] == []
        return self.find_last()[0]

    def vote(self, proposal: bytes, *voters: int, approves: bool = True) -> None:
        """Commit one block with a vote of each."""
        signed = [self.sign(Vote(proposal, approves), self.members[number]) for number in voters]
        assert self.block(*signed)[1] == []

    def make_ready(self, candidate: Person) -> None:
        """Commit the candidate's word."""
        self.apply(ShowReadiness(self.height - 1, self.find_id(self.height - 1)), candidate)

    def find_id(self, height: int) -> Hash:
        """The id of the last block or of the one before it."""
        assert height in (self.height, self.height - 1)
        return compute_block_id(self.parent) if height == self.height else self.parent.parent_id

    def find_last(self) -> tuple[bytes, Proposal]:
        """The proposal that was made last, with its id."""
        rows = [(key[len(PROPOSALS.prefix) :], one) for key, one in PROPOSALS.scan(self.state)]
        return max(rows, key=lambda row: row[1].proposed_height)

    def get_status(self, proposal: bytes) -> ProposalStatus:
        """Where a proposal stands."""
        return PROPOSALS.get(self.state, proposal).status

    def list_members(self) -> list[str]:
        """The names of those who decide the next block."""
        return [one.moniker for one in VALIDATORS.get(self.state).members]

    def _keep(self, writes: object) -> None:
        assert isinstance(writes, dict)
        for path, content in writes.items():
            if content is None:
                self._buckets.pop(path, None)
            else:
                self._buckets[path] = content


def make_change(
    effective_height: int,
    *,
    add: Person | None = None,
    remove: Person | None = None,
    parameters: dict[str, int] | None = None,
    version: int | None = None,
) -> Propose:
    """A proposal of these parts."""
    return Propose(
        add_validator=None if add is None else add.public_key,
        moniker=None if add is None else add.name,
        remove_validator=None if remove is None else remove.public_key,
        parameters=tuple(ParameterChange(name, value, None) for name, value in (parameters or {}).items()),
        protocol_version=version,
        effective_height=effective_height,
    )
