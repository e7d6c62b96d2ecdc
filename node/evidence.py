"""Evidence that this node found, until it stands on chain.

Owns its way into a transaction. What is not recorded yet is submitted again once its transaction has left the pool, so
that neither an expiry nor a full pool loses it. A restart does: others have seen the same messages.
"""

from __future__ import annotations

from typing import Final

from consensus.messages import Amnesia, DuplicateProposal, DuplicateVote, Evidence, Prevote, SignedProposal, SignedVote
from consensus.signer import SignFunction
from contracts_native.evidence import (
    NONE,
    ReportEvidence,
    Statement,
    StatementKind,
    check_age,
    find_offence,
    find_recorded,
)
from ledger.errors import Rejected
from ledger.execution import Chain
from ledger.parameters import get_parameters
from ledger.primitives import Hash, PublicKey, compute_address, sha256
from ledger.transaction import SALT_BYTES, BlockContext, compute_tx_id, make_body, sign_transaction
from ledger.validators import VALIDATORS
from node.mempool import Mempool

EVIDENCE_MAX: Final = 256  # held at a time; one offence of each kind for each validator and height
WINDOW_BLOCKS: Final = 100  # how long a submitted transaction is good for


class EvidencePool:
    """What was found and is not on chain, each with the id of the transaction that was last made of it."""

    def __init__(self) -> None:
        self._held: dict[tuple[PublicKey, int, str], ReportEvidence] = {}
        self._submitted: dict[tuple[PublicKey, int, str], Hash] = {}

    def add(self, evidence: Evidence) -> None:
        """Hold what the engine found; the first of its kind for this validator and height stands."""
        report = make_report(evidence)
        kind = find_offence(report.first, report.second)
        if kind is not None and len(self._held) < EVIDENCE_MAX:
            self._held.setdefault((report.offender, report.first.height, kind), report)

    def list_due(self, chain: Chain, mempool: Mempool, key: PublicKey | None, sign: SignFunction | None) -> list[bytes]:
        """Signed transactions of what is to be submitted now; what is on chain or too old is let go."""
        if not self._held or key is None or sign is None:
            return []
        self._forget_settled(chain)
        state = chain.make_state()
        if VALIDATORS.get(state).find_index(key) is None:
            return []  # it is taken from validators only
        height = chain.parent.height
        valid_until = height + min(WINDOW_BLOCKS, get_parameters(state).transaction_lifetime_blocks)
        due = []
        for name, report in self._held.items():
            last = self._submitted.get(name)
            if last is not None and last in mempool:
                continue
            body = make_body(
                chain_id=chain.parent.chain_id,
                payload=report,
                sender=compute_address(key),
                valid_until=valid_until,
                salt=sha256(report.first.signature + report.second.signature)[:SALT_BYTES],
            )
            tx_id = compute_tx_id(body)
            if tx_id != last:  # refused at this very height already
                self._submitted[name] = tx_id
                due.append(sign_transaction(body, [(key, sign)]))
        return due

    def _forget_settled(self, chain: Chain) -> None:
        state, parent = chain.make_state(), chain.parent
        block = BlockContext(parent.chain_id, parent.height + 1, parent.time_ms, parent.version)
        for name, report in list(self._held.items()):
            kind = find_offence(report.first, report.second)
            assert kind is not None
            is_settled = find_recorded(state, report.offender, report.first.height, kind) is not None
            try:
                check_age(state, report.first.height, block)
            except Rejected:
                is_settled = True
            if is_settled:
                del self._held[name]
                self._submitted.pop(name, None)


def make_report(evidence: Evidence) -> ReportEvidence:
    """The transaction's payload of what the engine found."""
    match evidence:
        case DuplicateProposal(one, other):
            return ReportEvidence(one.proposer, _read_proposal(one), _read_proposal(other))
        case DuplicateVote(first, second) | Amnesia(first, second):
            return ReportEvidence(first.voter, _read_vote(first), _read_vote(second))


def _read_proposal(signed: SignedProposal) -> Statement:
    said = signed.proposal
    return Statement(
        StatementKind.PROPOSAL,
        said.height,
        said.round,
        said.block_id,
        said.valid_round,
        said.time_ms,
        signed.signature,
    )


def _read_vote(signed: SignedVote) -> Statement:
    said = signed.vote
    is_prevote = isinstance(said, Prevote)
    return Statement(
        StatementKind.PREVOTE if is_prevote else StatementKind.PRECOMMIT,
        said.height,
        said.round,
        said.block_id,
        said.valid_round if isinstance(said, Prevote) else NONE,
        0,
        signed.signature,
    )
