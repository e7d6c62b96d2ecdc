"""A chain of real blocks for the tests of the index and of the queries.

The world of the contracts' tests, but each transaction goes into a block that is written to a store as a node writes
it: state, state trie, receipts, certificate and index in one batch.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Final

from consensus.messages import CommitCertificate, CommitSignature
from contracts_native.claims import ClaimEnergy, get_claim
from contracts_native.lots import LotId, SliceRef, TransferEnergy, get_slices
from contracts_native.slices import Slice, SliceStatus
from contracts_native.table import load_table
from ledger.execution import Chain, build_block
from ledger.parameters import Parameters
from ledger.primitives import Address, Hash, Height, Signature
from ledger.state import State
from ledger.storage import MemoryStore
from ledger.transaction import Payload, Transaction, check_signatures, decode_transaction
from node.chain_store import compute_block_batch, compute_genesis_batch, get_header, load_tree
from node.index import compute_index_changes
from node.queries.view import View
from tests.contracts_native.harness import (
    ALICE,
    BOB,
    CAROL,
    DAY_0_MS,
    DAY_MS,
    NOW_MS,
    Applied,
    Person,
    SigningMeter,
    World,
    make_genesis,
    make_person,
)

VALIDATOR: Final = make_person("validator")
CHAIN_HASH: Final = Hash(bytes(32))
PEOPLE: Final = (ALICE, BOB, CAROL)


class QueryChain(World):
    """``World``, with every transaction in a committed block."""

    def __init__(self, parameters: Parameters | None = None) -> None:
        self.table = load_table()
        self.time_ms = NOW_MS
        self.height = 0
        self.store = MemoryStore()
        self.store.write(compute_genesis_batch(make_genesis(parameters or Parameters()), self.table))
        self.state = State(self.store)
        self.tree = load_tree(self.store)
        self._salt = 0
        self._serial = 0

    @property
    def view(self) -> View:
        """What a query reads from."""
        return View(self.store, self.table, self.tree)

    def apply(self, payload: Payload, *, by: Person, cosigners: Sequence[Person] = ()) -> Applied:
        """Commit a payload in a block of its own. Raises ``Rejected``, and then there is no block."""
        return self.commit_block([self.read(payload, by=by, cosigners=cosigners)])[0]

    def read(self, payload: Payload, *, by: Person, cosigners: Sequence[Person] = ()) -> Transaction:
        """The signed transaction of a payload."""
        tx = decode_transaction(self.sign(payload, by=by, cosigners=cosigners), self.table)
        check_signatures(tx)
        return tx

    def commit_block(self, transactions: Sequence[Transaction]) -> list[Applied]:
        """Commit a block of these transactions. Raises the first refusal, and then there is no block."""
        parent = get_header(self.store, self.height)
        time_ms = max(self.time_ms, parent.time_ms + 1)
        chain = Chain(self.store, self.tree, parent, self.table)
        executed, dropped = build_block(chain, transactions, time_ms=time_ms, proposer=VALIDATOR.public_key)
        for one in dropped:
            raise one.error
        header = executed.block.header
        signature = CommitSignature(VALIDATOR.public_key, Signature(bytes(64)))
        certificate = CommitCertificate(CHAIN_HASH, Height(header.height), 0, executed.block_id, (signature,))
        index_changes = compute_index_changes(self.store, executed.receipts, header)
        self.store.write(compute_block_batch(executed, certificate, index_changes))
        self.tree.apply(executed.tree_update)
        self.height += 1
        self.state = State(self.store)
        return [Applied(receipt.tx_id, receipt.events) for receipt in executed.receipts]


def list_slices(chain: QueryChain, lots: Sequence[LotId]) -> Iterator[tuple[LotId, Slice]]:
    """Every slice of these lots, as the state has it: what the index is compared with."""
    for lot in lots:
        for one in get_slices(chain.state, lot):
            yield lot, one


def get_beneficiary(chain: QueryChain, one: Slice) -> Address:
    """For whom a claimed slice was used."""
    return get_claim(chain.state, one.reference).beneficiary


def trade_at_random(chain: QueryChain, lots: Sequence[LotId], random_: random.Random, *, steps: int) -> None:
    """Random transfers and volumetric claims of parts of slices, up to three in a block."""
    for step in range(steps):
        pairs = [pair for pair in list_slices(chain, lots) if pair[1].status is SliceStatus.ACTIVE]
        chosen = random_.sample(pairs, k=min(len(pairs), random_.randint(1, 3)))
        chain.commit_block([_trade(chain, lot, one, random_, step * 10 + i) for i, (lot, one) in enumerate(chosen)])


def _trade(chain: QueryChain, lot: LotId, one: Slice, random_: random.Random, number: int) -> Transaction:
    (holder,) = (person for person in PEOPLE if person.address == one.holder)
    first_wh = random_.randrange(one.first_wh, one.end_wh)
    ref = SliceRef(lot, first_wh, random_.randint(first_wh + 1, one.end_wh))
    if random_.random() < 0.6:
        recipient = random_.choice([person for person in PEOPLE if person != holder])
        return chain.read(TransferEnergy(recipient.address, (ref,), ""), by=holder)
    beneficiary, end_ms = random_.choice(PEOPLE), DAY_0_MS + 20 * DAY_MS
    payload = ClaimEnergy((ref,), beneficiary.address, "use", DAY_0_MS, end_ms, f"statement {number}")
    return chain.read(payload, by=holder)


def add_plants(chain: QueryChain, random_: random.Random) -> tuple[list[SigningMeter], list[LotId]]:
    """Two plants, of quarter-hours and of hours, with two days of production that cross midnight; the lots."""
    meters = [chain.add_producer(ALICE), chain.add_producer(CAROL, interval_s=3_600)]
    lots: list[LotId] = []
    for meter in meters:
        count = 36 * 3_600 // meter.interval_s  # a day and a half, so that a report crosses midnight
        values_wh = [random_.choice((0, random_.randint(1, 900))) for _ in range(count)]
        found = chain.produce(meter, *values_wh, start_ms=DAY_0_MS + 6 * 3_600_000)
        lots += [lot for lot, wh in zip(found, values_wh, strict=True) if wh]
    return meters, lots
