"""The handshake and the limits of one connection, as a dialogue of two sessions."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.encoding import encode
from ledger.primitives import Hash, PublicKey, Signature
from p2p.messages import (
    MESSAGE_TYPES,
    P2P_VERSION,
    BlockRequest,
    ConsensusMessage,
    Disconnect,
    HeightStatus,
    Hello,
    Proof,
    Transactions,
    encode_frame,
)
from p2p.session import (
    HANDSHAKE_TIMEOUT_MS,
    MINUTE_MS,
    PINGS_PER_MINUTE_MAX,
    Channel,
    FrameToSend,
    MessageReceived,
    PeerAuthenticated,
    PeerLeft,
    PeerRefused,
    Role,
    Session,
    SessionEvent,
    Traffic,
    TrafficTable,
)
from tests.p2p.dialogue import (
    ALICE,
    BOB,
    CAROL,
    START_MS,
    Dialogue,
    get_refusal,
    make_channel,
    make_dialogue,
    make_established,
    make_local,
    make_session,
)


def get_sent_frame(events: list[SessionEvent]) -> bytes:
    (event,) = events
    assert isinstance(event, FrameToSend), event
    return event.frame


# ---- the handshake -------------------------------------------------------------------------------------------------


def test_two_allowed_nodes_prove_their_keys_to_each_other() -> None:
    dialogue = make_dialogue()
    alice_saw, bob_saw = dialogue.play()
    assert [type(event) for event in (*alice_saw, *bob_saw)] == [PeerAuthenticated, PeerAuthenticated]
    assert dialogue.alice.peer is not None
    assert dialogue.alice.peer.public_key == BOB.public_key
    assert dialogue.bob.peer is not None
    assert dialogue.bob.peer.public_key == ALICE.public_key
    assert (dialogue.bob.peer.height, dialogue.bob.peer.moniker, dialogue.bob.peer.listen_port) == (7, "node-1", 8601)


def test_messages_flow_after_the_handshake() -> None:
    dialogue = make_established()
    for message in (Transactions((b"a", b"b")), ConsensusMessage(b"vote"), HeightStatus(9)):
        assert dialogue.bob.receive(dialogue.alice.send(message, START_MS), START_MS) == [MessageReceived(message)]


def test_sending_before_the_handshake_is_our_mistake() -> None:
    with pytest.raises(AssertionError):
        make_session(ALICE, Role.DIALLER).send(HeightStatus(1), START_MS)


def test_another_protocol_version_is_refused() -> None:
    frame = bytes((MESSAGE_TYPES[Hello].tag,)) + encode((P2P_VERSION + 1, "whatever"))
    assert get_refusal(make_session(BOB, Role.LISTENER).receive(frame, START_MS)) == "wrong_protocol_version"


@pytest.mark.parametrize(
    "other", [make_local(1, chain_id="test-2"), make_local(1, genesis_hash=Hash(b"h" * 32))], ids=["id", "genesis"]
)
def test_another_chain_is_refused(other: object) -> None:
    assert isinstance(other, type(ALICE))
    dialogue = Dialogue(make_session(other, Role.DIALLER), make_session(BOB, Role.LISTENER))
    assert dialogue.get_reasons() == ({"wrong_chain"}, {"wrong_chain"})


def test_a_stranger_is_refused_with_a_reason_and_gets_no_signature() -> None:
    allowed = {ALICE.public_key}
    bob = make_session(BOB, Role.LISTENER, find_refusal=lambda key: None if key in allowed else "stranger")
    hello = make_session(CAROL, Role.DIALLER).start(START_MS).frame
    assert get_refusal(bob.receive(hello, START_MS)) == "stranger"


def test_the_allowed_set_may_change_between_handshakes() -> None:
    allowed: set[PublicKey] = set()

    def play() -> bool:
        bob = make_session(BOB, Role.LISTENER, find_refusal=lambda key: None if key in allowed else "stranger")
        Dialogue(make_session(ALICE, Role.DIALLER), bob).play()
        return bob.is_established

    assert not play()
    allowed.add(ALICE.public_key)
    assert play()


def test_a_dialler_refuses_an_allowed_key_that_is_not_the_one_it_dialled() -> None:
    dialogue = Dialogue(
        make_session(ALICE, Role.DIALLER, expected_key=CAROL.public_key), make_session(BOB, Role.LISTENER)
    )
    assert dialogue.get_reasons() == ({"peer_key_unexpected"}, {"peer_key_unexpected"})


def test_a_node_that_reaches_itself_is_refused() -> None:
    dialogue = Dialogue(
        make_session(ALICE, Role.DIALLER), make_session(ALICE, Role.LISTENER, nonce=b"another nonce".ljust(32))
    )
    assert "connected_to_self" in dialogue.get_reasons()[0]


def test_a_claimed_key_without_its_signature_is_refused() -> None:
    thief = dataclasses.replace(ALICE, sign=CAROL.sign)
    dialogue = Dialogue(make_session(thief, Role.DIALLER), make_session(BOB, Role.LISTENER))
    assert "peer_signature_invalid" in dialogue.get_reasons()[1]
    assert not dialogue.bob.is_established


def test_a_key_other_than_the_certificates_is_refused_and_gets_no_signature() -> None:
    bob = make_session(BOB, Role.LISTENER, channel=make_channel(Role.LISTENER, CAROL))
    hello = make_session(ALICE, Role.DIALLER).start(START_MS).frame
    assert get_refusal(bob.receive(hello, START_MS)) == "certificate_of_another_key"


@pytest.mark.parametrize(("own", "peer"), [(b"m" * 32, b"d" * 32), (b"l" * 32, b"m" * 32)])
def test_a_handshake_relayed_through_another_channel_is_refused(own: bytes, peer: bytes) -> None:
    relayed = Channel(Hash(own), Hash(peer), ALICE.public_key)
    dialogue = Dialogue(make_session(ALICE, Role.DIALLER), make_session(BOB, Role.LISTENER, channel=relayed))
    assert "peer_signature_invalid" in dialogue.get_reasons()[0]
    assert not dialogue.alice.is_established
    assert not dialogue.bob.is_established


def test_a_proof_recorded_from_an_earlier_handshake_is_refused() -> None:
    first_bob = make_session(BOB, Role.LISTENER, nonce=b"1" * 32)
    alice = make_session(ALICE, Role.DIALLER)
    hello = alice.start(START_MS).frame
    recorded = get_sent_frame(alice.receive(first_bob.start(START_MS).frame, START_MS))
    second_bob = make_session(BOB, Role.LISTENER, nonce=b"2" * 32)
    for bob in (first_bob, second_bob):
        bob.receive(hello, START_MS)
    assert isinstance(first_bob.receive(recorded, START_MS)[0], PeerAuthenticated)
    assert get_refusal(second_bob.receive(recorded, START_MS)) == "peer_signature_invalid"


def test_a_proof_mirrored_back_is_refused() -> None:
    bob = make_session(BOB, Role.LISTENER)
    own_proof = get_sent_frame(bob.receive(make_session(ALICE, Role.DIALLER).start(START_MS).frame, START_MS))
    assert get_refusal(bob.receive(own_proof, START_MS)) == "peer_signature_invalid"


def test_a_proof_signed_for_the_other_role_is_refused() -> None:
    turned = dataclasses.replace(ALICE, sign=lambda data: ALICE.sign(data.replace(b"\xa7dialler", b"\xa8listener")))
    dialogue = Dialogue(make_session(turned, Role.DIALLER), make_session(BOB, Role.LISTENER))
    assert "peer_signature_invalid" in dialogue.get_reasons()[1]


def test_a_hello_changed_on_the_way_breaks_the_proof() -> None:
    alice, bob = make_session(ALICE, Role.DIALLER), make_session(BOB, Role.LISTENER)
    altered = Hello(ALICE.chain_id, ALICE.genesis_hash, ALICE.public_key, ALICE.public_key[::-1], "node-1", 8, 8601)
    bob.receive(encode_frame(altered), START_MS)
    proof = get_sent_frame(alice.receive(bob.start(START_MS).frame, START_MS))
    assert get_refusal(bob.receive(proof, START_MS)) == "peer_signature_invalid"


def test_a_handshake_that_comes_late_is_refused() -> None:
    hello = make_session(ALICE, Role.DIALLER).start(START_MS).frame
    late_ms = START_MS + HANDSHAKE_TIMEOUT_MS
    assert get_refusal(make_session(BOB, Role.LISTENER).receive(hello, late_ms)) == "handshake_timeout"
    in_time = make_session(BOB, Role.LISTENER).receive(hello, late_ms - 1)
    assert isinstance(in_time[0], FrameToSend)


def test_a_proof_before_the_hello_is_out_of_order() -> None:
    proof = encode_frame(Proof(Signature(bytes(64))))
    assert get_refusal(make_session(BOB, Role.LISTENER).receive(proof, START_MS)) == "handshake_out_of_order"


def test_a_message_before_the_proof_is_out_of_order() -> None:
    bob = make_session(BOB, Role.LISTENER)
    bob.receive(make_session(ALICE, Role.DIALLER).start(START_MS).frame, START_MS)
    assert get_refusal(bob.receive(encode_frame(HeightStatus(1)), START_MS)) == "handshake_out_of_order"


def test_a_second_hello_is_out_of_order() -> None:
    dialogue = make_established()
    hello = dialogue.alice.start(START_MS).frame
    assert get_refusal(dialogue.bob.receive(hello, START_MS)) == "handshake_out_of_order"


# ---- after the handshake: limits -----------------------------------------------------------------------------------


def test_an_unknown_message_is_refused() -> None:
    assert get_refusal(make_established().bob.receive(b"\xee\x90", START_MS)) == "message_unknown"


def test_a_malformed_message_is_refused() -> None:
    frame = bytes((MESSAGE_TYPES[BlockRequest].tag,)) + b"\x91\xc0"
    assert get_refusal(make_established().bob.receive(frame, START_MS)) == "message_malformed"


def test_a_message_above_the_size_of_its_type_is_refused() -> None:
    rule = MESSAGE_TYPES[ConsensusMessage]
    frame = bytes((rule.tag,)) + bytes(rule.size_bytes_max)
    assert get_refusal(make_established().bob.receive(frame, START_MS)) == "message_too_large"


def test_a_flood_is_refused_at_the_count_of_its_type_and_a_new_minute_opens_a_new_budget() -> None:
    frame = encode_frame(BlockRequest(from_height=1, count=1))
    count_max = MESSAGE_TYPES[BlockRequest].count_per_minute_max
    minute_start_ms = START_MS // MINUTE_MS * MINUTE_MS + MINUTE_MS
    bob = make_established().bob
    for now_ms in (minute_start_ms, minute_start_ms + MINUTE_MS):
        for _ in range(count_max):
            assert isinstance(bob.receive(frame, now_ms)[0], MessageReceived)
    assert get_refusal(bob.receive(frame, minute_start_ms + 2 * MINUTE_MS - 1)) == "message_rate_exceeded"


def test_a_flood_of_bytes_is_refused_before_its_count_is_reached() -> None:
    rule = MESSAGE_TYPES[ConsensusMessage]
    frame = encode_frame(ConsensusMessage(bytes(rule.size_bytes_max - 16)))
    bob = make_established().bob
    sent = 0
    while not bob.is_closed:
        events = bob.receive(frame, START_MS)
        sent += 1
    assert get_refusal(events) == "message_rate_exceeded"
    assert sent == rule.bytes_per_minute_max // len(frame) + 1 < rule.count_per_minute_max


def test_a_flood_of_one_type_is_judged_apart_from_the_others() -> None:
    bob = make_established().bob
    for _ in range(MESSAGE_TYPES[BlockRequest].count_per_minute_max):
        bob.receive(encode_frame(BlockRequest(from_height=1, count=1)), START_MS)
    assert isinstance(bob.receive(encode_frame(ConsensusMessage(b"vote")), START_MS)[0], MessageReceived)


def test_a_flood_of_pings_is_refused() -> None:
    bob = make_established().bob
    for _ in range(PINGS_PER_MINUTE_MAX):
        assert bob.receive_ping(4, START_MS) == []
    assert get_refusal(bob.receive_ping(4, START_MS)) == "message_rate_exceeded"


def test_a_farewell_names_the_reason_to_the_other_side() -> None:
    dialogue = make_established()
    (refused,) = dialogue.alice.refuse("shutting_down")
    assert isinstance(refused, PeerRefused)
    assert dialogue.bob.receive(refused.farewell, START_MS) == [PeerLeft("shutting_down")]


def test_a_closed_session_answers_nothing_more() -> None:
    bob = make_established().bob
    bob.receive(b"rubbish", START_MS)
    assert bob.is_closed
    assert bob.receive(encode_frame(HeightStatus(1)), START_MS) == []
    assert bob.receive(encode_frame(Disconnect("bye")), START_MS) == []
    assert bob.refuse("again") == []


# ---- accounting ----------------------------------------------------------------------------------------------------


def test_both_sides_count_the_same_traffic_by_type() -> None:
    dialogue = make_established()
    for height in range(3):
        dialogue.bob.receive(dialogue.alice.send(HeightStatus(height), START_MS), START_MS)
    expected = Traffic(count=3, size_bytes=9, minute_count=3, minute_bytes=9)
    assert dialogue.alice.sent.get_rows(START_MS)["HeightStatus"] == expected
    assert dialogue.bob.received.get_rows(START_MS) == dialogue.alice.sent.get_rows(START_MS)


def test_a_new_minute_starts_from_zero_and_keeps_the_totals() -> None:
    table = TrafficTable()
    table.count("Vote", 10, MINUTE_MS)
    table.count("Vote", 20, MINUTE_MS + 1)
    assert table.get_rows(MINUTE_MS + 2) == {"Vote": Traffic(2, 30, 2, 30)}
    assert table.get_rows(2 * MINUTE_MS) == {"Vote": Traffic(2, 30, 0, 0)}
    assert table.count("Vote", 5, 2 * MINUTE_MS) == Traffic(3, 35, 1, 5)


def test_a_clock_that_steps_back_opens_no_new_budget() -> None:
    table = TrafficTable()
    table.count("Vote", 10, 5 * MINUTE_MS)
    assert table.count("Vote", 10, 4 * MINUTE_MS) == Traffic(2, 20, 2, 20)


# ---- any bytes -----------------------------------------------------------------------------------------------------

REASONS = {
    "wrong_protocol_version",
    "wrong_chain",
    "peer_signature_invalid",
    "message_too_large",
    "message_rate_exceeded",
    "message_unknown",
    "message_malformed",
    "handshake_out_of_order",
}
tagged = st.builds(
    lambda tag, rest: bytes((tag,)) + rest,
    st.integers(0, 12),
    st.binary(max_size=80) | st.lists(st.binary(max_size=40) | st.integers(0, 2**64 - 1), max_size=8).map(encode),
)
valid = st.sampled_from(
    [
        make_session(ALICE, Role.DIALLER).start(START_MS).frame,
        encode_frame(Proof(Signature(bytes(64)))),
        encode_frame(HeightStatus(3)),
        encode_frame(Transactions((b"x",))),
        encode_frame(Disconnect("bye")),
    ]
)


def check_any_frames(session: Session, frames: list[bytes]) -> None:
    for frame in frames:
        was_closed = session.is_closed
        events = session.receive(frame, START_MS)
        assert len(events) == (0 if was_closed else 1)
        for event in events:
            assert not isinstance(event, PeerRefused) or event.reason in REASONS
            assert session.is_closed == isinstance(event, PeerRefused | PeerLeft)


@given(st.lists(st.binary(max_size=200) | tagged | valid, max_size=6))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_any_bytes_before_the_handshake_give_a_reason_and_never_establish(frames: list[bytes]) -> None:
    session = make_session(BOB, Role.LISTENER)
    check_any_frames(session, frames)
    assert not session.is_established


@given(st.lists(st.binary(max_size=200) | tagged | valid, max_size=6))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_any_bytes_after_the_handshake_give_a_message_or_a_reason(frames: list[bytes]) -> None:
    check_any_frames(make_established().bob, frames)
