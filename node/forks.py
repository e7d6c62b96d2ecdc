"""A fork as a node keeps it: two blocks of one height, each with the certificate of a quorum, and who signed both.

Owns the record, its keys in the store, and what it proves of whom. How a fork is found stands in `fork_watch.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from consensus.codec import decode_message
from consensus.light_client import verify_commit
from consensus.messages import (
    ChainContext,
    CommitCertificate,
    CommitSignature,
    DuplicateVote,
    Precommit,
    SignedVote,
)
from consensus.validators import ValidatorSet
from ledger.block import Header, compute_block_id
from ledger.encoding import decode, encode
from ledger.errors import CorruptStore, Malformed, RuleViolated
from ledger.fields import from_plain, to_plain
from ledger.primitives import Hash, Height, PublicKey
from ledger.storage import META, Changes, Reader, compute_prefix_end, format_height
from node.certificates.format import CommitPart, SignaturePart

FORK_SEEN: Final = "fork_seen"  # the reason of the alarm, in the log and at /readyz
FORKS: Final = META + b"fork/"  # ‖ height → the first fork that was seen there
FORKS_MAX: Final = 16  # about 20 KB each among 40 validators; one that grows on is one height


@dataclass(frozen=True, slots=True)
class FinalHeader:
    """A header with the precommits that made it final."""

    header: Header
    commit: CommitPart

    def compute_block_id(self) -> Hash:
        """The block that was decided."""
        return compute_block_id(self.header)

    def make_certificate(self, context: ChainContext) -> CommitCertificate:
        """The certificate as consensus reads it."""
        signatures = tuple(CommitSignature(one.voter, one.signature) for one in self.commit.signatures)
        height, block_id = Height(self.header.height), self.compute_block_id()
        return CommitCertificate(context.compute_hash(), height, self.commit.round, block_id, signatures)

    def verify(self, validators: ValidatorSet, context: ChainContext) -> None:
        """A quorum of ``validators`` precommitted it. Raises ``Rejected`` as the light client does.

        That they are those of its header is not asked: if ours decided another block, the chain has forked.
        """
        verify_commit(self.make_certificate(context), validators, context)

    def list_votes(self) -> dict[PublicKey, SignedVote]:
        """Each precommit by its voter."""
        vote = Precommit(Height(self.header.height), self.commit.round, self.compute_block_id())
        return {one.voter: SignedVote(vote, one.voter, one.signature) for one in self.commit.signatures}


@dataclass(frozen=True, slots=True)
class Fork:
    """Two final blocks of one height. ``peer`` gave us theirs, at ``seen_ms`` of our clock."""

    peer: PublicKey
    seen_ms: int
    ours: FinalHeader
    theirs: FinalHeader

    @property
    def height(self) -> int:
        """The height that was decided twice."""
        return self.ours.header.height

    @property
    def is_first(self) -> bool:
        """Whether the chains part here: both blocks stand on the same one."""
        return self.ours.header.parent_id == self.theirs.header.parent_id

    def list_duplicates(self) -> tuple[DuplicateVote, ...]:
        """Proof against whoever precommitted both blocks in one round: no honest validator does."""
        if self.ours.commit.round != self.theirs.commit.round:
            return ()
        ours, theirs = self.ours.list_votes(), self.theirs.list_votes()
        return tuple(DuplicateVote(ours[key], theirs[key]) for key in list_signers_of_both(self.ours, self.theirs))


def list_signers_of_both(ours: FinalHeader, theirs: FinalHeader) -> list[PublicKey]:
    """Who signed both, in the order of their keys: at least f + 1."""
    return sorted(ours.list_votes().keys() & theirs.list_votes().keys())


def make_final_header(header: Header, certificate: CommitCertificate) -> FinalHeader:
    """A header with its certificate, in the form that is kept."""
    signatures = sorted((SignaturePart(one.voter, one.signature) for one in certificate.signatures), key=_get_voter)
    return FinalHeader(header, CommitPart(certificate.round, tuple(signatures)))


def read_final_header(header: Header, certificate_bytes: bytes, context: ChainContext) -> FinalHeader:
    """A header with the certificate that a peer served beside it; no signature is checked yet. Raises ``Rejected``."""
    certificate = decode_message(certificate_bytes)
    if not isinstance(certificate, CommitCertificate) or certificate.height != header.height:
        raise Malformed("certificate_of_another_height", type(certificate).__name__)
    if certificate.block_id != compute_block_id(header):
        raise RuleViolated("certificate_of_another_block", certificate.block_id.hex())
    if certificate.chain_hash != context.compute_hash():
        raise RuleViolated("certificate_of_another_chain", certificate.chain_hash.hex())
    return make_final_header(header, certificate)


def describe_fork(fork: Fork) -> dict[str, object]:
    """A fork in a line of the log."""
    return {
        "height": fork.height,
        "ours": fork.ours.compute_block_id().hex(),
        "theirs": fork.theirs.compute_block_id().hex(),
        "peer": fork.peer.hex(),
        "signed_both": len(list_signers_of_both(fork.ours, fork.theirs)),
        "report": "wattprint chain forks",
    }


def list_forks(reader: Reader) -> Iterator[Fork]:
    """Every fork that is kept, the lowest first. Raises ``CorruptStore``."""
    for key, value in reader.scan(FORKS, compute_prefix_end(FORKS)):
        try:
            yield from_plain(Fork, decode(value))
        except Malformed as error:
            raise CorruptStore(f"fork {key.hex()}: {error}") from error


def list_fork_heights(reader: Reader) -> list[int]:
    """The heights of the forks that are kept, in order; the records are not read."""
    return [int.from_bytes(key[len(FORKS) :], "big") for key, _ in reader.scan(FORKS, compute_prefix_end(FORKS))]


def compute_fork_changes(reader: Reader, fork: Fork) -> Changes:
    """The writes that keep a fork; none when it is known, or enough are kept to make somebody look.

    One whose first height could not be seen is known when a lower one is: most likely it is that one, grown on.
    """
    heights = list_fork_heights(reader)
    is_known = fork.height in heights or (not fork.is_first and any(height < fork.height for height in heights))
    if is_known or len(heights) >= FORKS_MAX:
        return {}
    return {FORKS + format_height(fork.height): encode(to_plain(fork))}


def compute_forgetting(reader: Reader) -> dict[bytes, bytes | None]:
    """The writes that forget every fork: the operator has dealt with them."""
    return {key: None for key, _ in reader.scan(FORKS, compute_prefix_end(FORKS))}


def _get_voter(part: SignaturePart) -> PublicKey:
    return part.voter
