"""The rules at the door: would this transaction apply, after everything that is already pending?

Owns one overlay over the committed state with the pending transactions on it. It answers at once with the reason a
block would give later; it promises nothing, since a block may order things differently.
"""

from __future__ import annotations

from ledger.errors import NotAdmitted, Rejected
from ledger.execution import Chain, check_not_used, check_window, execute_transaction, make_block_context
from ledger.parameters import get_parameters
from ledger.primitives import Hash, PublicKey
from ledger.receipt import Event
from ledger.state import State
from ledger.transaction import BlockContext, Transaction, check_signatures, decode_transaction
from node.effects import Admission
from node.mempool import Mempool, Overloaded
from node.refusals import is_final


class Door:
    """Runs the rules for submitted transactions; ``advance`` after each block."""

    def __init__(self, chain: Chain, mempool: Mempool) -> None:
        self._chain = chain
        self._mempool = mempool
        self._state: State | None = None
        self._committed: State | None = None
        self._applied: set[Hash] = set()
        self._failed: set[Hash] = set()  # pending, and not to be tried again before the next block

    def advance(self, chain: Chain) -> None:
        """The chain has a new head: what is pending is applied again when somebody asks."""
        self._chain = chain
        self._state = None
        self._committed = None

    def submit(self, raw: bytes, now_ms: int) -> Admission:
        """Judge the bytes of a submission, and take what is good into the pool."""
        height, refusals = self._chain.parent.height, self._mempool.refusals
        refusal = refusals.find(raw, height=height, is_from_door=True)
        if refusal is not None:
            return Admission(refusal.tx_id, refusal.restate())
        tx_id = None
        try:
            self._mempool.check_room(raw)
            tx = self._mempool.find_by_raw(raw) or decode_transaction(raw, self._chain.table)
            tx_id = tx.tx_id
            self.admit(tx, now_ms)
        except Rejected as error:
            # What a later block may change is judged anew each time: its sender may have good reason to try again.
            if is_final(error, tx_id):
                refusals.note(raw, error, tx_id, height=height)
            return Admission(tx_id, error)
        return Admission(tx_id)

    def admit_copy(self, raw: bytes, now_ms: int, *, source: PublicKey, is_trusted: bool) -> bool:
        """Take in a transaction that a peer sent; whether it is new. Raises ``Rejected``.

        What is pending, or was refused lately, costs a look-up; of a trusted peer, the rules are left to the block.
        """
        if self._mempool.find_by_raw(raw) is not None:
            return False
        height, refusals = self._chain.parent.height, self._mempool.refusals
        refusal = refusals.find(raw, height=height, is_from_door=False)
        if refusal is not None:
            raise refusal.restate()
        self._mempool.check_room(raw)
        tx_id = None
        try:
            tx = decode_transaction(raw, self._chain.table)
            tx_id = tx.tx_id
            check_not_used(self._chain.reader, tx_id, set())
            # Neither costs a look-up like a copy of the same bytes; unrefused, they could be sent for ever.
            if tx_id in self._mempool:
                raise NotAdmitted("transaction_already_pending", tx_id.hex())
            if tx.valid_until <= height:
                raise NotAdmitted("transaction_expired", f"valid until {tx.valid_until}, {height} is past")
            self._mempool.check_share(tx)
            if not is_trusted:
                self._check_standing(tx, now_ms)
            check_signatures(tx)
            if not is_trusted:
                self.check(tx, now_ms, keep=True)
        except Overloaded:
            raise
        except Rejected as error:
            refusals.note(raw, error, tx_id, height=height)
            raise
        self._mempool.add(tx, now_ms, is_from_door=False, source=source)
        return True

    def admit(self, tx: Transaction, now_ms: int) -> None:
        """Check a submitted transaction in full and take it into the pool. Raises ``Rejected``."""
        if tx.tx_id in self._mempool:
            raise NotAdmitted("transaction_already_pending", tx.tx_id.hex())
        self._mempool.check_share(tx)
        check_signatures(tx)
        self.check(tx, now_ms, keep=True)
        self._mempool.add(tx, now_ms, is_from_door=True)

    def simulate(self, raw: bytes, now_ms: int) -> tuple[Event, ...]:
        """What a transaction would do; nothing of it stays. Raises ``Rejected``."""
        tx = decode_transaction(raw, self._chain.table)
        check_signatures(tx)
        return self.check(tx, now_ms, keep=False)

    def check(self, tx: Transaction, now_ms: int, *, keep: bool) -> tuple[Event, ...]:
        """The events that the transaction would cause. Raises ``Rejected``; with ``keep`` its changes stay."""
        check_not_used(self._chain.reader, tx.tx_id, set())
        context = self._make_context(now_ms)
        state = self._get_state(context)
        mark = state.savepoint()
        try:
            events = self._run(state, tx, context)
        except Rejected:
            # Perhaps it depends on a pending transaction that a peer sent: those are only run when needed.
            if not self._apply_copies(state, context):
                raise
            mark = state.savepoint()
            events = self._run(state, tx, context)
        if keep:
            self._applied.add(tx.tx_id)
        else:
            state.rollback(mark)
        return events

    def _check_standing(self, tx: Transaction, now_ms: int) -> None:
        """The committed state knows the signers and their roles, and the window is open. Raises ``Rejected``.

        It is a tenth of the cost of a signature: asked first, it keeps strangers' transactions from costing more.
        """
        if self._committed is None:
            self._committed = self._chain.make_state()
        lifetime_blocks = get_parameters(self._committed).transaction_lifetime_blocks
        check_window(tx, self._make_context(now_ms), lifetime_blocks=lifetime_blocks)
        self._chain.table.authorise(self._committed, tx, tx.payload.declaration)

    def _get_state(self, context: BlockContext) -> State:
        if self._state is None:
            self._state = self._chain.make_state()
            self._applied = set()
            self._failed = set()
            for tx in self._mempool.iterate(is_from_door=True):
                self._try(self._state, tx, context)
        return self._state

    def _apply_copies(self, state: State, context: BlockContext) -> bool:
        applied = [self._try(state, tx, context) for tx in self._mempool.iterate(is_from_door=False)]
        return any(applied)

    def _try(self, state: State, tx: Transaction, context: BlockContext) -> bool:
        if tx.tx_id in self._applied or tx.tx_id in self._failed:
            return False
        try:
            self._run(state, tx, context)
        except Rejected:
            self._failed.add(tx.tx_id)
            return False  # a block will drop it and tx_get will say why; here it is only background
        self._applied.add(tx.tx_id)
        return True

    def _run(self, state: State, tx: Transaction, context: BlockContext) -> tuple[Event, ...]:
        return execute_transaction(state, tx, self._chain.table, context, index=len(self._applied))

    def _make_context(self, now_ms: int) -> BlockContext:
        return make_block_context(self._chain, self._chain.make_state(), max(now_ms, self._chain.parent.time_ms + 1))
