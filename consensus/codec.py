"""The canonical bytes of every consensus message, and the strict way back.

`encode_message` and `decode_message` are each other's inverse: what decodes also encodes to the very same bytes.
Everything has a limit here, so that the engine never sees an oversized bitmap, certificate or round number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from consensus.messages import (
    VALID_ROUND_NONE,
    Amnesia,
    BlockRequest,
    CommitCertificate,
    CommitSignature,
    DuplicateProposal,
    DuplicateVote,
    Message,
    PolkaCertificate,
    PolkaSignature,
    Precommit,
    Prevote,
    Proposal,
    RoundCertificate,
    SignedProposal,
    SignedVote,
    Status,
    Step,
    VoteKind,
    VoteRequest,
    VoteSummary,
)
from ledger.encoding import Plain, decode, encode
from ledger.errors import Malformed
from ledger.primitives import HASH_BYTES, PUBLIC_KEY_BYTES, SIGNATURE_BYTES, Hash, Height, PublicKey, Signature

MESSAGE_BYTES_MAX: Final = 256 * 1024  # a round certificate of 512 votes with room to spare
VALIDATORS_MAX: Final = 128
CERTIFICATE_VOTES_MAX: Final = 4 * VALIDATORS_MAX  # both kinds, and room for conflicting votes
STATUS_VOTES_MAX: Final = 64
STATUS_BLOCKS_MAX: Final = 32
ROUND_MAX: Final = 2**31 - 1
HEIGHT_MAX: Final = 2**53 - 1
TIME_MS_MAX: Final = 2**53 - 1


_PROPOSAL: Final = 1
_PREVOTE: Final = 2
_PRECOMMIT: Final = 3
_POLKA_CERTIFICATE: Final = 4
_COMMIT_CERTIFICATE: Final = 5
_ROUND_CERTIFICATE: Final = 6
_STATUS: Final = 7
_VOTE_REQUEST: Final = 8
_BLOCK_REQUEST: Final = 9
_DUPLICATE_VOTE: Final = 10
_DUPLICATE_PROPOSAL: Final = 11
_AMNESIA: Final = 12


def encode_message(message: Message) -> bytes:
    """The canonical bytes of a message: an array that opens with the message's code."""
    return encode(_to_plain(message))


def decode_message(data: bytes) -> Message:
    """The message of canonical bytes. Raises ``Malformed`` for anything off (``message_…``, ``encoding_…``)."""
    fields = decode(data, bytes_max=MESSAGE_BYTES_MAX)
    if type(fields) is not tuple or not fields or type(fields[0]) is not int or fields[0] not in _READERS:
        raise Malformed("message_kind_unknown", repr(fields)[:40])
    return _READERS[fields[0]](fields)


def _to_plain(message: Message) -> Plain:
    match message:
        case SignedVote():
            return _vote_to_plain(message)
        case SignedProposal():
            return _proposal_to_plain(message)
        case Status(height, round_, step, has_proposal, votes, blocks):
            plain_votes = [_summary_to_plain(summary) for summary in votes]
            return (_STATUS, height, round_, int(step), has_proposal, plain_votes, blocks)
        case PolkaCertificate(height, round_, block_id, polka):
            signatures = [(s.voter, s.valid_round, s.signature) for s in polka]
            return (_POLKA_CERTIFICATE, height, round_, block_id, signatures)
        case CommitCertificate(chain_hash, height, round_, block_id, commit):
            pairs = [(s.voter, s.signature) for s in commit]
            return (_COMMIT_CERTIFICATE, chain_hash, height, round_, block_id, pairs)
        case RoundCertificate(height, round_, signed):
            return (_ROUND_CERTIFICATE, height, round_, [_vote_to_plain(vote) for vote in signed])
        case VoteRequest(height, round_):
            return (_VOTE_REQUEST, height, round_)
        case BlockRequest(height, round_, wanted):
            return (_BLOCK_REQUEST, height, round_, wanted)
        case DuplicateVote(first, second):
            return (_DUPLICATE_VOTE, _vote_to_plain(first), _vote_to_plain(second))
        case DuplicateProposal(one, other):
            return (_DUPLICATE_PROPOSAL, _proposal_to_plain(one), _proposal_to_plain(other))
        case Amnesia(precommit, prevote):
            return (_AMNESIA, _vote_to_plain(precommit), _vote_to_plain(prevote))


def _vote_to_plain(signed: SignedVote) -> Plain:
    vote = signed.vote
    if isinstance(vote, Prevote):
        fields = (vote.height, vote.round, vote.block_id, vote.valid_round)
        return (_PREVOTE, *fields, signed.voter, signed.signature)
    return (_PRECOMMIT, vote.height, vote.round, vote.block_id, signed.voter, signed.signature)


def _proposal_to_plain(signed: SignedProposal) -> Plain:
    proposal = signed.proposal
    fields = (proposal.height, proposal.round, proposal.block_id, proposal.valid_round, proposal.time_ms)
    return (_PROPOSAL, *fields, signed.proposer, signed.signature)


def _summary_to_plain(summary: VoteSummary) -> Plain:
    bitmap = summary.voters.to_bytes((summary.voters.bit_length() + 7) // 8, "little")
    return (summary.round, int(summary.kind), summary.block_id, bitmap)


def _read_vote(fields: tuple[Plain, ...]) -> SignedVote:
    if fields[:1] == (_PREVOTE,):
        _, height, round_, block_id, valid_round, voter, signature = _exactly(fields, 7)
        number = _round(round_)
        value = _hash_or_nil(block_id)
        back = _integer(valid_round, least=VALID_ROUND_NONE, most=number - 1)
        if value is None and back != VALID_ROUND_NONE:
            raise Malformed("message_nil_with_valid_round", back)
        return SignedVote(Prevote(_height(height), number, value, back), _key(voter), _signature(signature))
    if fields[:1] == (_PRECOMMIT,):
        _, height, round_, block_id, voter, signature = _exactly(fields, 6)
        precommit = Precommit(_height(height), _round(round_), _hash_or_nil(block_id))
        return SignedVote(precommit, _key(voter), _signature(signature))
    raise Malformed("message_not_a_vote", repr(fields)[:40])


def _read_proposal(fields: tuple[Plain, ...]) -> SignedProposal:
    code, height, round_, block_id, valid_round, time_ms, proposer, signature = _exactly(fields, 8)
    if type(code) is not int or code != _PROPOSAL:  # True equals 1
        raise Malformed("message_not_a_proposal", repr(code)[:40])
    number = _round(round_)
    back = _integer(valid_round, least=VALID_ROUND_NONE, most=number - 1)
    time = _integer(time_ms, least=0, most=TIME_MS_MAX)
    proposal = Proposal(_height(height), number, _hash(block_id), back, time)
    return SignedProposal(proposal, _key(proposer), _signature(signature))


def _read_polka(fields: tuple[Plain, ...]) -> PolkaCertificate:
    _, height, round_, block_id, signatures = _exactly(fields, 5)
    number = _round(round_)
    polka = []
    for item in _array(signatures, most=VALIDATORS_MAX):
        voter, valid_round, signature = _exactly(item, 3)
        back = _integer(valid_round, least=VALID_ROUND_NONE, most=number - 1)
        polka.append(PolkaSignature(_key(voter), back, _signature(signature)))
    return PolkaCertificate(_height(height), number, _hash(block_id), tuple(polka))


def _read_commit(fields: tuple[Plain, ...]) -> CommitCertificate:
    _, chain_hash, height, round_, block_id, signatures = _exactly(fields, 6)
    commit = []
    for item in _array(signatures, most=VALIDATORS_MAX):
        voter, signature = _exactly(item, 2)
        commit.append(CommitSignature(_key(voter), _signature(signature)))
    return CommitCertificate(_hash(chain_hash), _height(height), _round(round_), _hash(block_id), tuple(commit))


def _read_round_certificate(fields: tuple[Plain, ...]) -> RoundCertificate:
    _, height, round_, votes = _exactly(fields, 4)
    certificate = RoundCertificate(
        _height(height),
        _round(round_),
        tuple(_read_vote(_array(item, most=7)) for item in _array(votes, most=CERTIFICATE_VOTES_MAX)),
    )
    for signed in certificate.votes:
        if (signed.vote.height, signed.vote.round) != (certificate.height, certificate.round):
            raise Malformed("message_vote_of_another_round", signed.vote.round)
    return certificate


def _read_status(fields: tuple[Plain, ...]) -> Status:
    _, height, round_, step, has_proposal, votes, blocks = _exactly(fields, 7)
    if type(has_proposal) is not bool:
        raise Malformed("message_not_a_boolean", repr(has_proposal)[:40])
    return Status(
        _height(height),
        _round(round_),
        Step(_integer(step, least=Step.NEW_HEIGHT, most=Step.COMMIT)),
        has_proposal,
        tuple(_read_summary(item) for item in _array(votes, most=STATUS_VOTES_MAX)),
        tuple(_hash(item) for item in _array(blocks, most=STATUS_BLOCKS_MAX)),
    )


def _read_summary(item: Plain) -> VoteSummary:
    round_, kind, block_id, bitmap = _exactly(item, 4)
    if type(bitmap) is not bytes or len(bitmap) > VALIDATORS_MAX // 8 or bitmap[-1:] == b"\0":
        raise Malformed("message_bitmap_invalid", repr(bitmap)[:40])
    vote_kind = VoteKind(_integer(kind, least=VoteKind.PREVOTE, most=VoteKind.PRECOMMIT))
    return VoteSummary(_round(round_), vote_kind, _hash_or_nil(block_id), int.from_bytes(bitmap, "little"))


def _read_vote_request(fields: tuple[Plain, ...]) -> VoteRequest:
    _, height, round_ = _exactly(fields, 3)
    return VoteRequest(_height(height), _round(round_))


def _read_block_request(fields: tuple[Plain, ...]) -> BlockRequest:
    _, height, round_, block_id = _exactly(fields, 4)
    return BlockRequest(_height(height), _round(round_), _hash_or_nil(block_id))


def _read_duplicate_vote(fields: tuple[Plain, ...]) -> DuplicateVote:
    _, first, second = _exactly(fields, 3)
    return DuplicateVote(_read_vote(_array(first, most=7)), _read_vote(_array(second, most=7)))


def _read_duplicate_proposal(fields: tuple[Plain, ...]) -> DuplicateProposal:
    _, first, second = _exactly(fields, 3)
    return DuplicateProposal(_read_proposal(_array(first, most=8)), _read_proposal(_array(second, most=8)))


def _read_amnesia(fields: tuple[Plain, ...]) -> Amnesia:
    _, first, second = _exactly(fields, 3)
    return Amnesia(_read_vote(_array(first, most=7)), _read_vote(_array(second, most=7)))


_READERS: Final[dict[int, Callable[[tuple[Plain, ...]], Message]]] = {
    _PROPOSAL: _read_proposal,
    _PREVOTE: _read_vote,
    _PRECOMMIT: _read_vote,
    _POLKA_CERTIFICATE: _read_polka,
    _COMMIT_CERTIFICATE: _read_commit,
    _ROUND_CERTIFICATE: _read_round_certificate,
    _STATUS: _read_status,
    _VOTE_REQUEST: _read_vote_request,
    _BLOCK_REQUEST: _read_block_request,
    _DUPLICATE_VOTE: _read_duplicate_vote,
    _DUPLICATE_PROPOSAL: _read_duplicate_proposal,
    _AMNESIA: _read_amnesia,
}


def _array(value: Plain, *, most: int) -> tuple[Plain, ...]:
    if type(value) is not tuple:
        raise Malformed("message_not_an_array", type(value).__name__)
    if len(value) > most:
        raise Malformed("message_array_too_long", f"{len(value)} items, at most {most}")
    return value


def _exactly(value: Plain, count: int) -> tuple[Plain, ...]:
    if type(value) is not tuple or len(value) != count:
        raise Malformed("message_fields_invalid", repr(value)[:40])
    return value


def _integer(value: Plain, *, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise Malformed("message_integer_invalid", repr(value)[:40])
    return value


def _bytes(value: Plain, count: int) -> bytes:
    if type(value) is not bytes or len(value) != count:
        raise Malformed("message_bytes_invalid", repr(value)[:40])
    return value


def _height(value: Plain) -> Height:
    return Height(_integer(value, least=1, most=HEIGHT_MAX))


def _round(value: Plain) -> int:
    return _integer(value, least=0, most=ROUND_MAX)


def _hash(value: Plain) -> Hash:
    return Hash(_bytes(value, HASH_BYTES))


def _hash_or_nil(value: Plain) -> Hash | None:
    return None if value is None else _hash(value)


def _key(value: Plain) -> PublicKey:
    return PublicKey(_bytes(value, PUBLIC_KEY_BYTES))


def _signature(value: Plain) -> Signature:
    return Signature(_bytes(value, SIGNATURE_BYTES))
