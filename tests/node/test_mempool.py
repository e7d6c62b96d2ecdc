"""The pool and the way into it: one sender never takes all of it, and what was refused costs a look-up."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from random import Random

import pytest

from contracts_native.table import load_table
from ledger.errors import Malformed, NotAdmitted, RuleViolated
from ledger.execution import Chain
from ledger.primitives import Hash, PublicKey
from ledger.storage import MemoryStore
from ledger.transaction import Transaction, TransactionTable, check_signatures, decode_transaction
from node.chain_store import compute_genesis_batch, get_header, load_tree
from node.door import Door
from node.intake import (
    TRUST_EARNED,
    TRUST_LOST,
    TURN_TRANSACTIONS,
    WAITING_BYTES_MAX,
    WORTHLESS_BURST,
    WORTHLESS_PER_SECOND,
    Intake,
)
from node.keystore import SigningKey
from node.mempool import DROPPED_REMEMBERED_MAX, SENDER_FACTOR, Mempool, Overloaded
from node.refusals import ITEM_CHARACTERS_MAX, REFUSALS_MAX, REFUSED_BLOCKS, Refusals
from tests.node.fake_service import (
    ALICE,
    BOB,
    GENESIS_MS,
    UTILITY,
    make_fake_genesis,
    make_issue,
    make_transfer,
    sign_fake,
)

NOW_MS = GENESIS_MS + 1_000
PEER, OTHER = PublicKey(b"p" * 32), PublicKey(b"o" * 32)
STRANGER = SigningKey.from_seed(b"s" * 32)


def decode(raw: bytes) -> Transaction:
    return decode_transaction(raw, load_table())


def make_transfers(signer: SigningKey, count: int) -> list[Transaction]:
    return [decode(sign_fake(make_transfer(1), signer, salt=salt).raw) for salt in range(count)]


def fill(mempool: Mempool, transactions: list[Transaction]) -> int:
    """Add until one is refused; how many were taken."""
    for taken, tx in enumerate(transactions):
        try:
            mempool.add(tx, NOW_MS, is_from_door=True)
        except Overloaded:
            return taken
    return len(transactions)


class Way:
    """The way of a peer's transactions into a pool over the fake chain's genesis."""

    def __init__(self, *, transactions_max: int = 100, height: int = 0) -> None:
        store = MemoryStore(
            (key, value)
            for key, value in compute_genesis_batch(make_fake_genesis(), load_table()).items()
            if value is not None
        )
        self.mempool = Mempool(transactions_max=transactions_max, bytes_max=10**7)
        header = replace(get_header(store, 0), height=height)
        self.door = Door(Chain(store, load_tree(store), header, load_table()), self.mempool)
        self.intake = Intake(self.door, self.mempool)

    def send(self, *raws: bytes, peer: PublicKey = PEER, now_ms: int = NOW_MS) -> str | None:
        """What a peer sends, taken and looked at: the reason to blame it, or None; ``left_out`` if nobody looks."""
        left_out = self.intake.left_out
        blames = []
        if self.intake.take(peer, raws, now_ms):
            while self.intake:
                blames.append(self.intake.admit_some(now_ms))
        if self.intake.left_out > left_out and not any(blames):
            return "left_out"
        return next((blame[1].reason for blame in blames if blame is not None), None)


@pytest.fixture
def checked_signatures(monkeypatch: pytest.MonkeyPatch) -> list[Hash]:
    """The ids whose signatures were verified, in order."""
    seen: list[Hash] = []

    def note(tx: Transaction) -> None:
        seen.append(tx.tx_id)
        check_signatures(tx)

    monkeypatch.setattr("node.door.check_signatures", note)
    return seen


def test_a_sender_alone_gets_three_quarters_and_the_others_find_room() -> None:
    mempool = Mempool(transactions_max=100, bytes_max=10**6)
    assert fill(mempool, make_transfers(ALICE, 100)) == 75
    with pytest.raises(Overloaded, match="mempool_share_used"):
        mempool.add(make_transfers(ALICE, 101)[100], NOW_MS, is_from_door=True)
    assert fill(mempool, make_transfers(BOB, 100)) > 15
    assert fill(mempool, make_transfers(UTILITY, 100)) > 0
    assert len(mempool) < 100


def test_the_share_counts_bytes_too() -> None:
    transactions = make_transfers(ALICE, 100)
    size = len(transactions[0].raw)
    mempool = Mempool(transactions_max=10_000, bytes_max=40 * size)
    assert 28 <= fill(mempool, transactions) <= 31


@pytest.mark.parametrize("seed", range(5))
def test_whoever_has_nothing_pending_finds_room_whatever_others_do(seed: int) -> None:
    random = Random(seed)
    senders = [SigningKey.from_seed(bytes([value]) * 32) for value in range(6)]
    mempool = Mempool(transactions_max=60, bytes_max=10**6)
    pending: list[Hash] = []
    for salt in range(300):
        signer = random.choice(senders[1:])
        tx = decode(sign_fake(make_transfer(1), signer, salt=salt).raw)
        try:
            mempool.add(tx, NOW_MS, is_from_door=True)
            pending.append(tx.tx_id)
        except Overloaded:
            newcomer = decode(sign_fake(make_transfer(1), senders[0], salt=salt).raw)
            mempool.add(newcomer, NOW_MS, is_from_door=True)
            mempool.remove([newcomer.tx_id])
        if random.random() < 0.2 and pending:
            mempool.remove([pending.pop(random.randrange(len(pending)))])
        assert len(mempool) == len(pending)
        assert mempool.size_bytes == sum(len(tx.raw) for tx in mempool.list_transactions())


def test_what_leaves_gives_its_share_back() -> None:
    mempool = Mempool(transactions_max=SENDER_FACTOR + 1, bytes_max=10**6)
    first, *rest = make_transfers(ALICE, SENDER_FACTOR + 1)
    assert fill(mempool, [first, *rest]) == SENDER_FACTOR
    mempool.drop(first.tx_id, RuleViolated("credits_too_few"), height=1)
    mempool.add(rest[-1], NOW_MS, is_from_door=True)
    mempool.remove(tx.tx_id for tx in rest)
    assert (len(mempool), mempool.size_bytes, fill(mempool, make_transfers(ALICE, 9))) == (0, 0, SENDER_FACTOR)


def test_a_refusal_for_ever_holds_at_the_door_and_any_other_only_for_copies_and_for_a_while() -> None:
    refusals, tx_id = Refusals(), Hash(b"i" * 32)
    refusals.note(b"bad bytes", Malformed("field_missing"), None, height=5)
    refusals.note(b"forged", NotAdmitted("signature_invalid"), tx_id, height=5)
    refusals.note(b"poor", RuleViolated("credits_too_few"), tx_id, height=5)
    for raw in (b"bad bytes", b"forged"):
        assert refusals.find(raw, height=10**6, is_from_door=True) is not None
    assert refusals.find(b"poor", height=5, is_from_door=True) is None
    assert refusals.find(b"poor", height=4 + REFUSED_BLOCKS, is_from_door=False) is not None
    assert refusals.find(b"poor", height=5 + REFUSED_BLOCKS, is_from_door=False) is None
    assert refusals.find(b"never seen", height=5, is_from_door=False) is None


def test_only_so_many_refusals_are_remembered() -> None:
    refusals = Refusals()
    for number in range(REFUSALS_MAX + 10):
        refusals.note(b"%d" % number, Malformed("field_missing"), None, height=0)
    assert len(refusals) == REFUSALS_MAX
    assert refusals.find(b"9", height=0, is_from_door=True) is None


def test_refusals_that_hold_no_more_make_room_by_themselves() -> None:
    refusals, tx_id = Refusals(), Hash(b"i" * 32)
    for height in range(1, 200):
        refusals.note(b"poor at %d" % height, RuleViolated("credits_too_few"), tx_id, height=height)
        refusals.note(b"and %d" % height, RuleViolated("credits_too_few"), tx_id, height=height)
    assert len(refusals) == 2 * REFUSED_BLOCKS
    assert refusals.find(b"poor at 180", height=199, is_from_door=False) is not None


def test_a_forged_signature_is_verified_once_however_often_it_is_submitted(checked_signatures: list[Hash]) -> None:
    way, good = Way(), sign_fake(make_issue("p"), UTILITY).raw
    forged = good[:-1] + bytes([good[-1] ^ 1])
    answers = [way.door.submit(forged, NOW_MS) for _ in range(5)]
    assert {answer.error.reason for answer in answers if answer.error} == {"signature_invalid"}
    assert {answer.tx_id for answer in answers} == {decode(forged).tx_id}
    assert len(checked_signatures) == 1
    assert way.door.submit(good, NOW_MS).error is None


def test_a_refusal_by_a_rule_is_judged_anew_when_it_is_submitted_again() -> None:
    way, transfer = Way(), sign_fake(make_transfer(5), ALICE).raw
    assert way.door.submit(transfer, NOW_MS).error is not None
    assert way.door.submit(sign_fake(make_issue("p"), UTILITY).raw, NOW_MS).error is None
    assert way.door.submit(transfer, NOW_MS).error is None


def test_a_strangers_transaction_from_a_peer_is_refused_before_its_signature(checked_signatures: list[Hash]) -> None:
    way = Way()
    assert way.send(*(sign_fake(make_transfer(1), STRANGER, salt=salt).raw for salt in range(20))) is None
    assert (len(way.mempool), checked_signatures) == (0, [])


def test_a_peer_is_blamed_for_bytes_that_nobody_may_send_also_the_second_time() -> None:
    way, good = Way(), sign_fake(make_issue("p"), UTILITY).raw
    forged = good[:-1] + bytes([good[-1] ^ 1])
    for _ in range(2):
        assert way.send(forged, good) == "signature_invalid"
        assert way.send(b"\xff") is not None
    assert way.send(good, good) is None
    assert len(way.mempool) == 1


def test_a_peer_whose_transactions_are_worthless_is_not_listened_to_for_a_while() -> None:
    way = Way()
    for salt in range(WORTHLESS_BURST):
        assert way.send(sign_fake(make_transfer(1), STRANGER, salt=salt).raw) is None
    good = sign_fake(make_issue("p"), UTILITY).raw
    assert way.send(good) == "left_out"
    assert way.send(good, peer=OTHER) is None
    assert way.send(good, now_ms=NOW_MS + 1_000) is None


def test_expired_ones_and_other_bytes_of_a_pending_one_are_worthless_too() -> None:
    way = Way(height=9)
    pending = sign_fake(make_issue("p"), UTILITY)
    assert way.send(pending.raw) is None
    expired = [sign_fake(make_transfer(1), ALICE, salt=salt, valid_until=9).raw for salt in range(WORTHLESS_BURST - 1)]
    assert way.send(*expired) is None
    assert way.send(pending.raw[:-1] + bytes([pending.raw[-1] ^ 1])) is None
    assert way.send(sign_fake(make_issue("q"), UTILITY).raw) == "left_out"
    assert len(way.mempool) == 1


def test_what_is_remembered_of_a_refusal_keeps_nothing_of_where_it_was_raised() -> None:
    way = Way()
    worthless, pending = sign_fake(make_transfer(5), ALICE).raw, sign_fake(make_issue("p"), UTILITY).raw
    for _ in range(3):  # the later ones are answered from memory
        assert way.send(worthless) is None
    refusal = way.mempool.refusals.find(worthless, height=0, is_from_door=False)
    assert refusal is not None
    assert refusal.restate().__traceback__ is None
    assert way.send(pending) is None
    tx_id = decode(pending).tx_id
    with pytest.raises(RuleViolated) as raised:
        raise RuleViolated("block_full")
    way.mempool.drop(tx_id, raised.value, height=0)
    for _ in range(2):
        dropped = way.mempool.find_dropped(tx_id)
        assert dropped is not None
        assert (str(dropped), dropped.__traceback__) == ("block_full", None)
        with pytest.raises(RuleViolated):
            raise dropped


def test_all_that_may_be_remembered_of_refusals_takes_no_more_than_it_says() -> None:
    mempool = Mempool(transactions_max=1, bytes_max=1)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(REFUSALS_MAX + 10):
            tx_id = Hash(number.to_bytes(32, "big"))
            committed = NotAdmitted("transaction_already_committed", tx_id.hex())
            mempool.refusals.note(number.to_bytes(8, "big"), committed, tx_id, height=1)
        refused, _ = tracemalloc.get_traced_memory()
        for number in range(DROPPED_REMEMBERED_MAX + 10):
            mempool.drop(Hash(number.to_bytes(32, "big")), RuleViolated("credits_missing", f"{number}"), height=1)
        dropped, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (refused - before) >> 20 < 8
    assert (dropped - refused) >> 20 < 6


def test_what_a_stranger_names_is_remembered_up_to_a_length() -> None:
    refusals = Refusals()
    refusals.note(b"r", Malformed("choice_unknown", "x" * 100_000), None, height=1)
    refusal = refusals.find(b"r", height=1, is_from_door=True)
    assert refusal is not None
    assert str(refusal.restate()) == "choice_unknown: " + "x" * ITEM_CHARACTERS_MAX


def test_no_more_worthless_ones_are_looked_at_than_the_rate_says(monkeypatch: pytest.MonkeyPatch) -> None:
    way, looked_at = Way(), 0
    admit = Door.admit_copy

    def count(self: Door, raw: bytes, now_ms: int, *, source: PublicKey, is_trusted: bool) -> bool:
        nonlocal looked_at
        looked_at += 1
        return admit(self, raw, now_ms, source=source, is_trusted=is_trusted)

    monkeypatch.setattr(Door, "admit_copy", count)
    batch = [sign_fake(make_transfer(1), STRANGER, salt=salt).raw for salt in range(TURN_TRANSACTIONS)]
    for passed_ms in range(0, 5_000, 50):  # as often as the rate lets one more be looked at
        way.send(*batch, now_ms=NOW_MS + passed_ms)
    assert WORTHLESS_BURST <= looked_at <= WORTHLESS_BURST + 5 * WORTHLESS_PER_SECOND


def test_an_unknown_peers_copies_are_judged_by_the_rules_and_a_trusted_ones_are_left_to_the_block() -> None:
    way, poor = Way(), sign_fake(make_transfer(5), ALICE).raw
    good = [sign_fake(make_issue(f"p{n}"), UTILITY) for n in range(3)]
    assert way.send(poor) is None
    assert way.send(*(one.raw for one in good)) is None
    assert [tx.raw for tx in way.mempool.list_transactions()] == [one.raw for one in good]
    way.intake.note_committed([decode(one.raw) for one in good], height=1)
    trusted = [sign_fake(make_transfer(5), BOB, salt=salt).raw for salt in range(3 * TRUST_EARNED + 5)]
    assert way.send(*trusted) is None
    assert len(way.mempool) == len(good) + 3 * TRUST_EARNED  # as many as it was trusted with


def test_a_copy_that_comes_after_its_block_is_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    way, paid = Way(), [sign_fake(make_issue(f"p{n}"), UTILITY) for n in range(3)]
    way.intake.note_committed([decode(one.raw) for one in paid[:2]], height=1)
    decoded: list[bytes] = []

    def note(raw: bytes, table: TransactionTable) -> Transaction:
        decoded.append(raw)
        return decode_transaction(raw, table)

    monkeypatch.setattr("node.door.decode_transaction", note)
    for _ in range(WORTHLESS_BURST):
        assert way.send(*(one.raw for one in paid)) is None  # a late copy is no fault
    assert decoded == [paid[2].raw]


def test_what_a_block_drops_costs_its_sender_trust_and_then_everything() -> None:
    way = Way()
    paid = [sign_fake(make_issue(f"p{n}"), UTILITY) for n in range(2 * TRUST_LOST)]
    assert way.send(*(one.raw for one in paid)) is None
    way.intake.note_committed([decode(one.raw) for one in paid], height=1)
    first, second = (sign_fake(make_transfer(5), BOB, salt=salt) for salt in (1, 2))
    assert way.send(first.raw) is None
    dropped = decode(first.raw).tx_id
    for _ in range(2 * TRUST_EARNED):
        way.intake.note_dropped(dropped, NOW_MS)
    assert way.send(second.raw) is None  # looked at, and refused by a rule
    assert decode(second.raw).tx_id not in way.mempool
    for _ in range(WORTHLESS_BURST):
        way.intake.note_dropped(dropped, NOW_MS)
    assert way.send(b"anything") == "left_out"


def test_peers_take_turns_however_much_one_of_them_sends() -> None:
    way = Way()
    many = tuple(sign_fake(make_issue(f"m{n}"), UTILITY).raw for n in range(3 * TURN_TRANSACTIONS))
    one = sign_fake(make_issue("one"), UTILITY).raw
    assert way.intake.take(PEER, many, NOW_MS)
    assert not way.intake.take(OTHER, (one,), NOW_MS)  # a turn is due already
    for _ in range(2):
        way.intake.admit_some(NOW_MS)
    assert decode(one).tx_id in way.mempool
    assert len(way.mempool) == TURN_TRANSACTIONS + 1


def test_only_so_many_bytes_of_a_peer_wait_to_be_looked_at() -> None:
    way, message = Way(), (bytes(WAITING_BYTES_MAX // 4),)
    assert way.intake.take(PEER, message * 4, NOW_MS)
    assert not way.intake.take(PEER, message, NOW_MS)
    assert way.intake.left_out == 1
    way.intake.take(OTHER, message, NOW_MS)
    assert way.intake.left_out == 1
    way.intake.admit_some(NOW_MS)
    assert way.intake.take(PEER, message, NOW_MS) is False
    assert way.intake.left_out == 4  # three went with the fault of the first
