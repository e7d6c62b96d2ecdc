"""The proposed blocks of the height under way: each body is checked once and executed once.

Owns the kept results. A commit takes the result that the vote was based on; nothing is executed a second time.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from consensus.messages import SignedProposal
from consensus.round import is_fresh
from consensus.validators import ValidatorSet
from ledger.block import Block, compute_block_id, compute_transactions_root, decode_block, decode_stored_header
from ledger.errors import Malformed, RuleViolated
from ledger.execution import Chain, Dropped, Executed, build_block, execute_block
from ledger.primitives import Hash, PublicKey
from node.mempool import Mempool

BODIES_MAX: Final = 64  # decoded bodies of one height; rounds are few, and each has one proposer
BODIES_BYTES_MAX: Final = 32 * 1024 * 1024  # of these: a peer may send as many as it likes in a proposer's name
RESULTS_MAX: Final = 8  # of one height, however many rounds it takes; that of a full block takes megabytes
OBJECT_BYTES: Final = 64  # what each transaction takes beside its own bytes


class Candidates:
    """Blocks that may become the next one, by id."""

    def __init__(self, chain: Chain, validators: ValidatorSet, mempool: Mempool) -> None:
        self._mempool = mempool
        self._bodies: OrderedDict[Hash, Block] = OrderedDict()
        self._bodies_bytes = 0
        self._executed: OrderedDict[Hash, Executed] = OrderedDict()
        self.advance(chain, validators)

    def advance(self, chain: Chain, validators: ValidatorSet) -> None:
        """The chain has a new head: begin anew."""
        self._chain = chain
        self._parent_id = compute_block_id(chain.parent)
        self._proposers = {member.public_key for member in validators.members}
        self._bodies.clear()
        self._bodies_bytes = 0
        self._executed.clear()

    def remember(self, block_id: Hash, body: bytes, time_ms: int) -> None:
        """Decode a body that a peer sent under an id. Raises ``Malformed`` if it is not what the id stands for."""
        if block_id in self._bodies:
            return
        block = decode_block(body)
        check_body(block, block_id, time_ms)
        self._bodies[block_id] = block
        self._bodies_bytes += _measure(block)
        while len(self._bodies) > BODIES_MAX or self._bodies_bytes > BODIES_BYTES_MAX:
            _, oldest = self._bodies.popitem(last=False)
            self._bodies_bytes -= _measure(oldest)

    def is_of_another_branch(self, block_id: Hash, body: bytes) -> bool:
        """Whether a body stands on another block than our head; one that does not decode stands on nothing."""
        block = self._bodies.get(block_id)
        try:
            header = decode_stored_header(body) if block is None else block.header
        except Malformed:
            return False
        return header.parent_id != self._parent_id

    def build(self, time_ms: int, proposer: PublicKey) -> tuple[Executed, tuple[Dropped, ...]]:
        """Our own block of what is pending, and what turned out not to apply."""
        executed, dropped = build_block(
            self._chain, self._mempool.list_transactions(), time_ms=time_ms, proposer=proposer
        )
        self._keep(executed)
        return executed, dropped

    def execute(self, block_id: Hash, body: bytes) -> Executed:
        """The result of executing a block, from memory if it was executed lately. Raises ``Rejected``."""
        executed = self._executed.get(block_id)
        if executed is not None:
            self._executed.move_to_end(block_id)
            return executed
        block = self._bodies.get(block_id) or decode_block(body)
        if block.header.proposer not in self._proposers:
            raise RuleViolated("block_proposer_unknown", block.header.proposer.hex())
        executed = execute_block(self._chain, block, body, find_known=self._mempool.find_by_raw)
        if executed.block_id != block_id:
            raise RuleViolated("block_id_wrong", executed.block_id.hex())
        self._keep(executed)
        return executed

    def _keep(self, executed: Executed) -> None:
        self._executed[executed.block_id] = executed
        while len(self._executed) > RESULTS_MAX:
            self._executed.popitem(last=False)  # if it is decided after all, it is executed again


def _measure(block: Block) -> int:
    return sum(map(len, block.transactions)) + OBJECT_BYTES * len(block.transactions)


def check_proposer(signed: SignedProposal, body: bytes) -> None:
    """Who proposes a fresh block is who its header says. Raises ``Malformed``.

    Rules judge by headers who is there, so nobody may propose in the name of another. A block proposed again bears the
    name of whoever proposed it first; it has had a polka, so this was checked then.
    """
    if is_fresh(signed.proposal) and decode_stored_header(body).proposer != signed.proposer:
        raise Malformed("block_of_another_proposer", signed.proposal.block_id.hex())


def check_body(block: Block, block_id: Hash, time_ms: int) -> None:
    """The body is the one that the id stands for, at this time. Raises ``Malformed``."""
    header = block.header
    if compute_block_id(header) != block_id or header.time_ms != time_ms:
        raise Malformed("block_body_of_another_id", block_id.hex())
    if compute_transactions_root(block.transactions) != header.transactions_root:
        raise Malformed("block_body_of_another_id", "the transactions are not those of the header")
