"""From the wire to the engine: which fact a peer's message is.

Owns no state and no decision; it keeps these tables out of the core.
"""

from __future__ import annotations

from consensus import inputs as facts
from consensus.codec import decode_message
from consensus.messages import (
    BlockRequest,
    CommitCertificate,
    PolkaCertificate,
    RoundCertificate,
    SignedProposal,
    SignedVote,
    Status,
    VoteRequest,
)
from ledger.errors import Malformed
from ledger.primitives import PublicKey
from p2p.messages import ProposalMessage


def read_fact(peer: PublicKey, body: bytes, now_ms: int) -> facts.Input:
    """The fact that a peer's consensus message is. Raises ``Malformed`` (also ``message_not_expected``)."""
    message = decode_message(body)
    match message:
        case SignedVote():
            return facts.VoteReceived(message, now_ms)
        case PolkaCertificate() | CommitCertificate() | RoundCertificate():
            return facts.CertificateReceived(message, now_ms)
        case Status():
            return facts.StatusReceived(peer, message, now_ms)
        case VoteRequest() | BlockRequest():
            return facts.RequestReceived(peer, message, now_ms)
        case _:
            raise Malformed("message_not_expected", type(message).__name__)


def read_proposal(message: ProposalMessage) -> tuple[SignedProposal, PolkaCertificate | None]:
    """The proposal of a message, and its polka. Raises ``Malformed``."""
    proposal = decode_message(message.proposal)
    polka = decode_message(message.polka) if message.polka else None
    if not isinstance(proposal, SignedProposal) or not isinstance(polka, PolkaCertificate | None):
        raise Malformed("message_not_expected", "a proposal and perhaps a polka")
    return proposal, polka
