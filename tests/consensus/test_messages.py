"""Messages have one byte form, signatures belong to one chain, and garbage is refused by name."""

from __future__ import annotations

from random import Random
from typing import Final

import pytest

from consensus.codec import MESSAGE_BYTES_MAX, STATUS_VOTES_MAX, decode_message, encode_message
from consensus.messages import (
    Amnesia,
    BlockRequest,
    ChainContext,
    CommitCertificate,
    CommitSignature,
    DuplicateProposal,
    DuplicateVote,
    Message,
    Payload,
    PolkaCertificate,
    PolkaSignature,
    Precommit,
    Prevote,
    Proposal,
    RoundCertificate,
    Status,
    Step,
    VoteKind,
    VoteRequest,
    VoteSummary,
    compute_signed_bytes,
    list_certificate_votes,
)
from consensus.validators import Validator, ValidatorSet
from ledger.encoding import decode, encode
from ledger.errors import Malformed
from ledger.primitives import Hash, Height, PublicKey, sha256
from tests.consensus.harness import CONTEXT, HEIGHT, KEYS, build_validators

ID: Final = sha256(b"block")
PREVOTE: Final = KEYS[0].vote(Prevote(HEIGHT, 2, ID, 1))
NIL: Final = KEYS[1].vote(Precommit(HEIGHT, 2, None))
PROPOSAL: Final = KEYS[0].propose(Proposal(HEIGHT, 2, ID, -1, 1_000))
OTHER: Final = KEYS[0].propose(Proposal(HEIGHT, 2, ID, 1, 1_000))
BARE: Final = (1, 0, ID, -1, 5, bytes(32), bytes(64))  # the fields of a proposal
SUMMARIES: Final = (VoteSummary(2, VoteKind.PREVOTE, ID, 0b1011), VoteSummary(0, VoteKind.PRECOMMIT, None, 1 << 100))
MESSAGES: Final[tuple[Message, ...]] = (
    PREVOTE,
    NIL,
    PROPOSAL,
    PolkaCertificate(HEIGHT, 2, ID, (PolkaSignature(KEYS[0].public, 1, PREVOTE.signature),)),
    CommitCertificate(CONTEXT.compute_hash(), HEIGHT, 2, ID, (CommitSignature(KEYS[1].public, NIL.signature),)),
    RoundCertificate(HEIGHT, 2, (PREVOTE, NIL)),
    Status(HEIGHT, 2, Step.PREVOTE, has_proposal=True, votes=SUMMARIES, blocks=(ID,)),
    VoteRequest(HEIGHT, 2),
    BlockRequest(HEIGHT, 2, None),
    BlockRequest(HEIGHT, 2, ID),
    DuplicateVote(NIL, KEYS[1].vote(Precommit(HEIGHT, 2, ID))),
    Amnesia(KEYS[1].vote(Precommit(HEIGHT, 2, ID)), NIL),
    DuplicateProposal(PROPOSAL, OTHER),
)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_message_comes_back_from_its_bytes(message: Message) -> None:
    assert decode_message(encode_message(message)) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_what_decodes_encodes_to_the_same_bytes_and_all_else_is_malformed(message: Message) -> None:
    random = Random(1)
    data = encode_message(message)
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(random.randrange(1, 4)):
            changed[random.randrange(len(changed))] = random.randrange(256)
        cut = bytes(changed[: random.choice([len(changed), random.randrange(len(changed))])])
        try:
            assert encode_message(decode_message(cut)) == cut
        except Malformed:
            continue


@pytest.mark.parametrize(
    ("plain", "reason"),
    [
        (None, "message_kind_unknown"),
        ((), "message_kind_unknown"),
        ((99, 1), "message_kind_unknown"),
        ((True, *BARE), "message_kind_unknown"),
        ((8, 1), "message_fields_invalid"),
        ((8, 0, 0), "message_integer_invalid"),
        ((8, True, 0), "message_integer_invalid"),
        ((8, 1, -1), "message_integer_invalid"),
        ((8, 1, 2**31), "message_integer_invalid"),
        ((9, 1, 0, bytes(31)), "message_bytes_invalid"),
        ((2, 1, 0, ID, 0, bytes(32), bytes(64)), "message_integer_invalid"),  # valid round not below the round
        ((2, 1, 3, None, 1, bytes(32), bytes(64)), "message_nil_with_valid_round"),
        ((6, 1, 0, [(3, 1, 1, None, bytes(32), bytes(64))]), "message_vote_of_another_round"),
        ((6, 1, 0, [(8, 1, 0)]), "message_not_a_vote"),
        ((7, 1, 0, 5, False, [], []), "message_integer_invalid"),
        ((7, 1, 0, 1, 0, [], []), "message_not_a_boolean"),
        ((7, 1, 0, 1, False, [(0, 1, None, b"\1\0")], []), "message_bitmap_invalid"),
        ((7, 1, 0, 1, False, [(0, 1, None, b"")] * (STATUS_VOTES_MAX + 1), []), "message_array_too_long"),
        ((7, 1, 0, 1, False, 3, []), "message_not_an_array"),
        ((11, (True, *BARE), (1, *BARE)), "message_not_a_proposal"),
    ],
)
def test_misshapen_message_is_refused_by_name(plain: tuple[object, ...] | None, reason: str) -> None:
    with pytest.raises(Malformed) as refusal:
        decode_message(_encode(plain))
    assert refusal.value.reason == reason


def _encode(plain: object) -> bytes:
    assert plain is None or isinstance(plain, tuple)
    return encode(plain)


def test_oversized_message_is_refused_before_it_is_read() -> None:
    with pytest.raises(Malformed, match="encoding_too_large"):
        decode_message(bytes(MESSAGE_BYTES_MAX + 1))


def test_signed_bytes_are_tag_and_canonical_fields() -> None:
    data = compute_signed_bytes(CONTEXT, PREVOTE.vote)
    tag, _, fields = data.partition(b"\0")
    assert tag == b"wattprint/prevote/1"
    assert decode(fields) == ("harness", CONTEXT.genesis_hash, 1, HEIGHT, 2, ID, 1)


def test_no_two_payloads_or_chains_share_signed_bytes() -> None:
    votes: list[Payload] = [
        Prevote(HEIGHT, 1, ID, -1),
        Prevote(HEIGHT, 1, ID, 0),
        Precommit(HEIGHT, 1, ID),
        Precommit(HEIGHT, 1, None),
    ]
    payloads: list[Payload] = [*votes, Proposal(HEIGHT, 1, ID, -1, 5), Proposal(HEIGHT, 1, ID, -1, 6)]
    contexts = [
        CONTEXT,
        ChainContext("other", CONTEXT.genesis_hash),
        ChainContext("harness", sha256(b"other")),
        ChainContext("harness", CONTEXT.genesis_hash, protocol_version=2),
    ]
    signed = {compute_signed_bytes(context, payload) for context in contexts for payload in payloads}
    assert len(signed) == len(contexts) * len(payloads)
    assert len({context.compute_hash() for context in contexts}) == len(contexts)


def test_certificates_fall_apart_into_their_votes() -> None:
    polka = PolkaCertificate(HEIGHT, 2, ID, (PolkaSignature(PREVOTE.voter, 1, PREVOTE.signature),))
    assert list_certificate_votes(polka) == (PREVOTE,)
    assert list_certificate_votes(RoundCertificate(HEIGHT, 2, (PREVOTE, NIL))) == (PREVOTE, NIL)


@pytest.mark.parametrize(
    ("count", "f", "quorum"),
    [(1, 0, 1), (2, 0, 2), (3, 0, 3), (4, 1, 3), (5, 1, 4), (6, 1, 5), (7, 2, 5), (40, 13, 27)],
)
def test_quorum_is_all_but_f(count: int, f: int, quorum: int) -> None:
    members = tuple(Validator(PublicKey(sha256(bytes([number]))), "") for number in range(count))
    validators = ValidatorSet(members)
    assert (validators.f, validators.quorum, len(validators)) == (f, quorum, count)


def test_proposers_take_turns() -> None:
    validators = build_validators(4)
    keys = [validators.get_proposer(Height(8), round_).public_key for round_ in range(5)]
    assert keys == [KEYS[i].public for i in (0, 1, 2, 3, 0)]
    assert validators.get_proposer(Height(9), 0).public_key == KEYS[1].public


def test_hash_of_a_set_depends_on_keys_names_and_order() -> None:
    one, two = Validator(KEYS[0].public, "one"), Validator(KEYS[1].public, "two")
    sets = [(one, two), (two, one), (one,), (Validator(KEYS[0].public, "uno"), two)]
    hashes: set[Hash] = {ValidatorSet(members).compute_hash() for members in sets}
    assert len(hashes) == len(sets)


def test_set_with_one_key_twice_is_our_mistake() -> None:
    member = Validator(KEYS[0].public, "one")
    with pytest.raises(AssertionError):
        ValidatorSet((member, Validator(KEYS[0].public, "two")))
