"""The story: what is built is what is executed, a transaction applies whole or not at all, nothing applies twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ledger.block import Block, compute_block_id, compute_transactions_root, encode_block
from ledger.encoding import Plain, encode
from ledger.errors import NotAdmitted, NotPermitted, Rejected
from ledger.execution import Executed, execute_block
from ledger.parameters import Parameters
from ledger.primitives import Hash, PublicKey
from ledger.receipt import compute_event_leaves, compute_events_root, decode_receipts, encode_receipts
from ledger.transaction import Payload, Transaction
from tests.ledger.toy import (
    ALICE,
    BOB,
    NOTES,
    STRANGER,
    TABLE,
    WATCHER,
    Later,
    Note,
    Noted,
    Signer,
    Spoil,
    ToyChain,
    Watch,
    WriteNote,
    change_header,
    read_tx,
    write_tx,
)


def know_nothing(_raw: bytes) -> Transaction | None:
    return None


def execute(chain: ToyChain, block: Block) -> Executed:
    return execute_block(chain.chain, block, encode_block(block), find_known=know_nothing)


def drop_reason(chain: ToyChain, raw: bytes) -> str:
    """Why a lone transaction did not come into a block; the block and the state know nothing of it."""
    executed, dropped = chain.build(raw)
    assert executed.block.transactions == ()
    assert executed.changes == {}
    assert executed.block.header.state_root == chain.parent.state_root
    (one,) = dropped
    assert one.transaction.raw == raw
    return one.error.reason


def notes(count: int, by: Signer = ALICE) -> list[bytes]:
    return [write_tx(WriteNote(f"note {i}", i), by) for i in range(count)]


def test_builder_and_voters_agree_on_block_receipts_changes_and_root() -> None:
    builder, voter = ToyChain(), ToyChain()
    assert builder.parent == voter.parent
    for height in range(1, 5):
        raws = [write_tx(WriteNote(f"{height} {i}", i), (ALICE, BOB)[i % 2]) for i in range(height)]
        built, dropped = builder.build(*raws, write_tx(Spoil("first")))
        assert [one.error.reason for one in dropped] == ["note_spoiled"]
        executed = execute(voter, built.block)
        assert executed.block == built.block
        assert executed.block_id == built.block_id == compute_block_id(built.block.header)
        assert executed.receipts == built.receipts
        assert executed.changes == built.changes
        assert executed.tree_update == built.tree_update
        assert executed.body == built.body == encode_block(built.block)
        assert [tx.tx_id for tx in executed.transactions] == [tx.tx_id for tx in built.transactions]
        builder.commit(built)
        voter.commit(executed)
        assert builder.tree.root == voter.tree.root == built.block.header.state_root


def test_a_rule_sees_its_height_and_its_place_in_the_block() -> None:
    chain = ToyChain()
    executed, _ = chain.build(write_tx(Spoil("x")), *notes(2))
    chain.commit(executed)
    assert NOTES.get(chain.state, "note 1") == Note(value=1, height=1, index=1)


def test_a_refused_transaction_leaves_no_trace() -> None:
    chain = ToyChain()
    first = write_tx(WriteNote("first", 1))
    spoiled, _ = chain.build(first, write_tx(Spoil("second")), write_tx(WriteNote("third", 3)))
    plain, _ = chain.build(first, write_tx(WriteNote("third", 3)))
    assert spoiled.block == plain.block
    assert spoiled.changes == plain.changes
    assert spoiled.receipts == plain.receipts
    assert drop_reason(chain, write_tx(Spoil("second"))) == "note_spoiled"


def test_a_receipt_holds_the_events_in_order_and_survives_its_bytes() -> None:
    executed, _ = ToyChain().build(*notes(3))
    assert [receipt.events for receipt in executed.receipts] == [(Noted(f"note {i}", i),) for i in range(3)]
    assert [receipt.tx_id for receipt in executed.receipts] == [tx.tx_id for tx in executed.transactions]
    assert decode_receipts(encode_receipts(executed.receipts, executed.event_leaves), TABLE.events) == executed.receipts
    assert executed.block.header.events_root == compute_events_root(compute_event_leaves(executed.receipts))
    assert executed.block.header.events_root != compute_events_root(compute_event_leaves(executed.receipts[::-1]))


def test_a_known_transaction_is_not_decoded_again() -> None:
    chain = ToyChain()
    built, _ = chain.build(*notes(2))
    known = {tx.raw: tx for tx in built.transactions}
    executed = execute_block(chain.chain, built.block, built.body, find_known=known.get)
    assert all(one is known[one.raw] for one in executed.transactions)


@pytest.mark.parametrize(
    ("payload", "by", "cosigners", "reason", "kind"),
    [
        (WriteNote("x", 1), STRANGER, (), "signer_unknown", NotAdmitted),
        (WriteNote("x", 1), ALICE, (STRANGER,), "signer_unknown", NotAdmitted),
        (Watch(), ALICE, (), "role_missing", NotPermitted),
        (Watch(), ALICE, (WATCHER,), "role_missing", NotPermitted),
        (Later(), ALICE, (), "transaction_type_not_active", NotAdmitted),
    ],
)
def test_a_signer_who_may_not_is_refused(
    payload: Payload, by: Signer, cosigners: tuple[Signer, ...], reason: str, kind: type[Rejected]
) -> None:
    _, (dropped,) = ToyChain().build(write_tx(payload, by, cosigners=cosigners))
    assert dropped.error.reason == reason
    assert isinstance(dropped.error, kind)


def test_the_role_is_asked_of_the_sender_and_any_registered_cosigner_may_sign_with_it() -> None:
    executed, dropped = ToyChain().build(write_tx(Watch(), WATCHER, cosigners=[ALICE]))
    assert not dropped
    assert len(executed.block.transactions) == 1


def test_a_key_that_is_not_the_signers_key_in_force_is_refused() -> None:
    """The envelope verifies: Bob's key signed it. But it speaks for Alice."""
    impostor = Signer("bob")
    impostor.address = ALICE.address
    assert drop_reason(ToyChain(), write_tx(WriteNote("x", 1), impostor)) == "signing_key_not_in_force"


def test_another_chains_transaction_is_refused() -> None:
    assert drop_reason(ToyChain(), write_tx(WriteNote("x", 1), chain_id="toy-2")) == "transaction_of_another_chain"


def test_a_transaction_is_valid_in_its_window_and_not_a_block_longer() -> None:
    chain = ToyChain(Parameters(transaction_lifetime_blocks=3))
    for _ in range(4):
        chain.commit(chain.build()[0])
    assert chain.parent.height == 4  # what is built next has height 5
    reasons = {}
    for valid_until in range(3, 11):
        executed, dropped = chain.build(write_tx(WriteNote("x", 1), valid_until=valid_until))
        assert len(executed.block.transactions) + len(dropped) == 1
        reasons[valid_until] = dropped[0].error.reason if dropped else "applied"
    assert reasons == {
        **dict.fromkeys((3, 4), "transaction_expired"),
        **dict.fromkeys((5, 6, 7, 8), "applied"),
        **dict.fromkeys((9, 10), "transaction_window_too_long"),
    }


def test_an_id_is_committed_once_whoever_signs_it_again() -> None:
    chain = ToyChain()
    raw = write_tx(Watch(), WATCHER)
    executed, (twin,) = chain.build(raw, raw)
    assert twin.error.reason == "transaction_already_committed"
    assert len(executed.block.transactions) == 1
    chain.commit(executed)
    assert drop_reason(chain, raw) == "transaction_already_committed"
    assert drop_reason(ToyChain(), write_tx(Spoil("x"))) == "note_spoiled"
    other_salt, dropped = chain.build(write_tx(Watch(), WATCHER, salt=b"12345678"))
    assert not dropped
    assert len(other_salt.block.transactions) == 1


def forge(block: Block, transactions: tuple[bytes, ...]) -> Block:
    """A block whose header agrees with its transactions as far as a liar can tell without executing them."""
    root = compute_transactions_root(transactions)
    return Block(replace(block.header, transactions_root=root, transactions_count=len(transactions)), transactions)


def refusal_of(chain: ToyChain, block: Block) -> Rejected:
    with pytest.raises(Rejected) as refusal:
        execute(chain, block)
    return refusal.value


def test_a_block_with_a_replayed_transaction_is_refused() -> None:
    chain = ToyChain()
    raw = write_tx(Watch(), WATCHER)
    built, _ = chain.build(raw)
    assert refusal_of(chain, forge(built.block, (raw, raw))).reason == "transaction_already_committed"
    chain.commit(built)
    empty, _ = chain.build()
    assert refusal_of(chain, forge(empty.block, (raw,))).reason == "transaction_already_committed"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (write_tx(Spoil("x")), "note_spoiled"),
        (write_tx(Watch(), ALICE), "role_missing"),
        (write_tx(WriteNote("x", 1), STRANGER), "signer_unknown"),
        (write_tx(WriteNote("x", 1), valid_until=9_999), "transaction_window_too_long"),
        (write_tx(WriteNote("x", 1))[:-1] + b"\x00", "signature_invalid"),
        (b"garbage", "encoding_invalid"),
        (b"", "encoding_invalid"),
        (encode((b"", ())), "encoding_invalid"),
    ],
)
def test_a_block_with_a_transaction_that_does_not_apply_is_refused(raw: bytes, reason: str) -> None:
    chain = ToyChain()
    built, _ = chain.build(*notes(1))
    refusal = refusal_of(chain, forge(built.block, (*built.block.transactions, raw)))
    assert refusal.reason == reason
    assert chain.tree.root == chain.parent.state_root


@pytest.mark.parametrize(
    "name", ["transactions_count", "transactions_root", "events_root", "state_root", "next_validators_hash"]
)
def test_a_tampered_header_is_refused_and_the_part_is_named(name: str) -> None:
    chain = ToyChain()
    built, _ = chain.build(*notes(2))
    value: Plain = 3 if name == "transactions_count" else Hash(b"x" * 32)
    refusal = refusal_of(chain, Block(change_header(built.block.header, **{name: value}), built.block.transactions))
    assert refusal.reason == "block_roots_wrong"
    assert refusal.item == name


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("version", 2, "block_version_wrong"),
        ("chain_id", "toy-2", "block_of_another_chain"),
        ("height", 2, "block_height_wrong"),
        ("parent_id", Hash(b"x" * 32), "block_parent_wrong"),
        ("time_ms", 5, "block_time_not_rising"),
        ("validators_hash", Hash(b"x" * 32), "block_validators_wrong"),
    ],
)
def test_a_header_that_does_not_follow_is_refused_before_anything_runs(name: str, value: Plain, reason: str) -> None:
    chain = ToyChain()
    built, _ = chain.build(*notes(2))
    block = Block(change_header(built.block.header, **{name: value}), (b"garbage",))
    assert refusal_of(chain, block).reason == reason


def test_another_order_other_bytes_or_a_missing_transaction_are_refused() -> None:
    chain = ToyChain()
    built, _ = chain.build(*notes(3))
    raws = built.block.transactions
    for changed in (raws[::-1], raws[:-1], (*raws, notes(4)[3]), (*raws[:-1], notes(4)[3]), ()):
        assert refusal_of(chain, Block(built.block.header, changed)).reason == "block_roots_wrong"
        assert refusal_of(chain, forge(built.block, changed)).reason == "block_roots_wrong"


def test_the_proposer_is_whoever_the_header_says() -> None:
    """Whether it was that validator's turn is consensus; here it only must not change what the block did."""
    chain = ToyChain()
    built, _ = chain.build(*notes(1))
    other = Block(replace(built.block.header, proposer=PublicKey(bytes(32))), built.block.transactions)
    assert execute(chain, other).changes == built.changes


def test_a_block_takes_no_more_transactions_than_allowed_and_drops_none_for_that() -> None:
    chain = ToyChain(Parameters(block_transactions_max=2))
    built, dropped = chain.build(*notes(3))
    assert len(built.block.transactions) == 2
    assert not dropped
    voter = ToyChain(Parameters(block_transactions_max=2))
    third = notes(3)[2]
    assert refusal_of(voter, forge(built.block, (*built.block.transactions, third))).reason == "block_too_large"


def test_a_block_takes_no_more_bytes_than_allowed_and_goes_on_to_what_fits() -> None:
    limit = 2_048
    chain = ToyChain(Parameters(block_bytes_max=limit))
    large = [write_tx(WriteNote("x" * 250, 1), cosigners=[BOB, WATCHER]) for _ in range(1)]
    built, dropped = chain.build(*notes(4), *large, *notes(9)[4:])
    assert not dropped
    assert large[0] not in built.block.transactions
    assert 4 <= len(built.block.transactions) < 9
    assert len(built.body) <= limit
    everything = (*notes(9), *large)
    assert (
        refusal_of(ToyChain(Parameters(block_bytes_max=limit)), forge(built.block, everything)).reason
        == "block_too_large"
    )


def test_an_empty_block_changes_nothing_but_the_height() -> None:
    chain = ToyChain()
    built, _ = chain.build()
    assert built.changes == {}
    assert built.block.header.state_root == chain.parent.state_root
    assert execute(chain, built.block).block_id == built.block_id


def test_a_transaction_may_build_on_one_before_it_in_the_block() -> None:
    chain = ToyChain()
    again = write_tx(WriteNote("note 0", 9), BOB)
    executed, (dropped,) = chain.build(*notes(1), again)
    assert dropped.error.reason == "note_already_written"
    assert read_tx(again).tx_id == dropped.transaction.tx_id
    assert len(executed.receipts) == 1
