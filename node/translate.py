"""Between the wire and the engine: which fact a peer's message is, and which message an order of the engine becomes.

Owns no state and no decision; it keeps these two tables out of the core.
"""

from __future__ import annotations

from consensus import inputs as facts
from consensus.codec import decode_message, encode_message
from consensus.messages import (
    BlockRequest,
    CommitCertificate,
    Message,
    PolkaCertificate,
    RoundCertificate,
    SignedProposal,
    SignedVote,
    Status,
    VoteRequest,
)
from ledger.errors import Malformed
from ledger.primitives import PublicKey
from p2p.messages import ConsensusMessage, PeerMessage, ProposalMessage


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


def wrap(message: Message, body: bytes | None, polka: PolkaCertificate | None) -> PeerMessage:
    """What goes to peers; a proposal goes with its body."""
    if isinstance(message, SignedProposal):
        assert body is not None, "a proposal travels with its body"
        return ProposalMessage(encode_message(message), body, b"" if polka is None else encode_message(polka))
    return ConsensusMessage(encode_message(message))
