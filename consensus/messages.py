"""What validators say to each other: the shapes, the bytes that are signed, and the meaning of each.

A payload (`Proposal`, `Prevote`, `Precommit`) is what a validator stands for; its signed form adds key and signature.
Signed bytes carry chain id, genesis hash and protocol version, so that no signature means anything on another chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

from ledger.authorities import (
    STATEMENT_VERSION,
    SignedChain,
    compute_precommit_bytes,
    compute_prevote_bytes,
    compute_proposal_bytes,
)
from ledger.encoding import encode
from ledger.primitives import Hash, Height, PublicKey, Signature, sha256

VALID_ROUND_NONE: Final = -1  # a fresh proposal, or nothing locked

_CHAIN_TAG: Final = b"wattprint/chain/1\0"


class Step(IntEnum):
    """Where a node stands within a height; NEW_HEIGHT is idle, COMMIT is decided."""

    NEW_HEIGHT = 0
    PROPOSE = 1
    PREVOTE = 2
    PRECOMMIT = 3
    COMMIT = 4


class VoteKind(IntEnum):
    """The two kinds of vote."""

    PREVOTE = 1
    PRECOMMIT = 2


@dataclass(frozen=True, slots=True)
class ChainContext:
    """Which chain a signature belongs to."""

    chain_id: str
    genesis_hash: Hash
    protocol_version: int = STATEMENT_VERSION

    def compute_hash(self) -> Hash:
        """One hash that names the chain; a commit certificate carries it so that a wrong chain can be told."""
        return sha256(_CHAIN_TAG + encode((self.chain_id, self.genesis_hash, self.protocol_version)))


@dataclass(frozen=True, slots=True)
class Proposal:
    """The proposer's block for a round; ``valid_round`` ≥ 0 re-proposes a block that had a polka in that round."""

    height: Height
    round: int
    block_id: Hash
    valid_round: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class Prevote:
    """First vote of a round, for a block or nil.

    ``valid_round`` is the latest round in which the voter has seen a polka that entitles it to this vote: the
    proposal's, or that of its own lock on the block. It makes amnesia provable: who has precommitted another block in
    a later round than that, and before this vote, has forgotten its lock.
    """

    height: Height
    round: int
    block_id: Hash | None
    valid_round: int


@dataclass(frozen=True, slots=True)
class Precommit:
    """Second vote of a round: for a block, a quorum of prevotes for it was seen."""

    height: Height
    round: int
    block_id: Hash | None


Vote: TypeAlias = Prevote | Precommit
Payload: TypeAlias = Proposal | Prevote | Precommit


@dataclass(frozen=True, slots=True)
class SignedProposal:
    """A proposal with its proposer's key and signature. The block's body travels beside it."""

    proposal: Proposal
    proposer: PublicKey
    signature: Signature


@dataclass(frozen=True, slots=True)
class SignedVote:
    """A vote with its voter's key and signature."""

    vote: Vote
    voter: PublicKey
    signature: Signature


@dataclass(frozen=True, slots=True)
class PolkaSignature:
    """One prevote inside a polka certificate."""

    voter: PublicKey
    valid_round: int
    signature: Signature


@dataclass(frozen=True, slots=True)
class PolkaCertificate:
    """A quorum of prevotes for one block in one round: what entitles to lock, and to re-propose."""

    height: Height
    round: int
    block_id: Hash
    signatures: tuple[PolkaSignature, ...]


@dataclass(frozen=True, slots=True)
class CommitSignature:
    """One precommit inside a commit certificate."""

    voter: PublicKey
    signature: Signature


@dataclass(frozen=True, slots=True)
class CommitCertificate:
    """A quorum of precommits for one block in one round: the block is final."""

    chain_hash: Hash
    height: Height
    round: int
    block_id: Hash
    signatures: tuple[CommitSignature, ...]


@dataclass(frozen=True, slots=True)
class RoundCertificate:
    """Votes of one round in one message: brings a peer into that round, and fills what it lacks."""

    height: Height
    round: int
    votes: tuple[SignedVote, ...]


@dataclass(frozen=True, slots=True)
class VoteSummary:
    """Whose votes of one kind, for one value, a node holds: bit i of ``voters`` is validator i of the height's set."""

    round: int
    kind: VoteKind
    block_id: Hash | None
    voters: int


@dataclass(frozen=True, slots=True)
class Status:
    """Where a node stands and what it holds, newest rounds first; its peers send what it lacks."""

    height: Height
    round: int
    step: Step
    has_proposal: bool  # holds the proposal of its current round
    votes: tuple[VoteSummary, ...]
    blocks: tuple[Hash, ...]  # blocks of this height whose body it holds


@dataclass(frozen=True, slots=True)
class VoteRequest:
    """Asks for the votes of one round."""

    height: Height
    round: int


@dataclass(frozen=True, slots=True)
class BlockRequest:
    """Asks for a body: of the block named, or, with None, of the proposal of that round."""

    height: Height
    round: int
    block_id: Hash | None


@dataclass(frozen=True, slots=True)
class DuplicateVote:
    """Evidence: one validator signed two different votes of one kind in one round."""

    first: SignedVote
    second: SignedVote


@dataclass(frozen=True, slots=True)
class DuplicateProposal:
    """Evidence: one validator signed two different proposals for one round."""

    first: SignedProposal
    second: SignedProposal


@dataclass(frozen=True, slots=True)
class Amnesia:
    """Evidence: a validator precommitted a block, and later prevoted another without a polka that would allow it."""

    first: SignedVote  # the precommit
    second: SignedVote  # the prevote, of a later round


Certificate: TypeAlias = PolkaCertificate | CommitCertificate | RoundCertificate
Request: TypeAlias = VoteRequest | BlockRequest
Evidence: TypeAlias = DuplicateVote | DuplicateProposal | Amnesia
Message: TypeAlias = SignedProposal | SignedVote | Certificate | Status | Request | Evidence


def get_vote_kind(vote: Vote) -> VoteKind:
    """Which of the two kinds a vote is."""
    return VoteKind.PREVOTE if type(vote) is Prevote else VoteKind.PRECOMMIT


def compute_signed_bytes(context: ChainContext, payload: Payload) -> bytes:
    """The bytes a validator signs for ``payload``: tag ‖ encode((chain id, genesis hash, version, fields…))."""
    chain = SignedChain(context.chain_id, context.genesis_hash, context.protocol_version)
    height, round_, block_id = payload.height, payload.round, payload.block_id
    match payload:
        case Prevote():
            valid_round = payload.valid_round
            return compute_prevote_bytes(
                chain, height=height, round_=round_, block_id=block_id, valid_round=valid_round
            )
        case Precommit():
            return compute_precommit_bytes(chain, height=height, round_=round_, block_id=block_id)
        case Proposal():
            return compute_proposal_bytes(
                chain,
                height=height,
                round_=round_,
                block_id=payload.block_id,
                valid_round=payload.valid_round,
                time_ms=payload.time_ms,
            )


def list_certificate_votes(certificate: Certificate) -> tuple[SignedVote, ...]:
    """The single votes that a certificate is made of."""
    match certificate:
        case PolkaCertificate(height, round_, block_id, polka):
            return tuple(
                SignedVote(Prevote(height, round_, block_id, s.valid_round), s.voter, s.signature) for s in polka
            )
        case CommitCertificate(_, height, round_, block_id, commit):
            precommit = Precommit(height, round_, block_id)
            return tuple(SignedVote(precommit, s.voter, s.signature) for s in commit)
        case RoundCertificate():
            return certificate.votes
