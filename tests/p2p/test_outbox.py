"""What waits for a peer leaves by priority and never above its limits."""

from __future__ import annotations

from p2p.messages import FRAME_BYTES_MAX, QueueClass
from p2p.outbox import QUEUE_LIMITS, Held, Outbox


def drain(outbox: Outbox) -> list[bytes]:
    frames = []
    while (frame := outbox.take()) is not None:
        frames.append(frame)
    return frames


def test_consensus_leaves_first_then_blocks_then_transactions_each_in_order() -> None:
    outbox = Outbox(Held())
    for queue, frame in (
        (QueueClass.TRANSACTIONS, b"t1"),
        (QueueClass.BLOCKS, b"b1"),
        (QueueClass.CONSENSUS, b"c1"),
        (QueueClass.TRANSACTIONS, b"t2"),
        (QueueClass.CONSENSUS, b"c2"),
    ):
        assert outbox.offer(queue, frame)
    assert drain(outbox) == [b"c1", b"c2", b"b1", b"t1", b"t2"]


def test_a_vote_overtakes_a_full_transaction_queue() -> None:
    outbox = Outbox(Held())
    while outbox.offer(QueueClass.TRANSACTIONS, b"t"):
        pass
    assert outbox.offer(QueueClass.CONSENSUS, b"vote")
    assert outbox.take() == b"vote"


def test_a_queue_full_by_count_drops_and_counts_it() -> None:
    outbox = Outbox(Held())
    frames_max = QUEUE_LIMITS[QueueClass.TRANSACTIONS].frames_max
    assert [outbox.offer(QueueClass.TRANSACTIONS, b"t") for _ in range(frames_max + 2)].count(False) == 2
    assert outbox.get_dropped() == {QueueClass.CONSENSUS: 0, QueueClass.BLOCKS: 0, QueueClass.TRANSACTIONS: 2}
    assert outbox.get_waiting()[QueueClass.TRANSACTIONS] == frames_max


def test_a_queue_full_by_bytes_takes_more_once_it_has_drained() -> None:
    outbox = Outbox(Held())
    half = bytes(QUEUE_LIMITS[QueueClass.BLOCKS].bytes_max // 2)
    assert outbox.offer(QueueClass.BLOCKS, half)
    assert outbox.offer(QueueClass.BLOCKS, half)
    assert not outbox.offer(QueueClass.BLOCKS, b"x")
    outbox.take()
    assert outbox.offer(QueueClass.BLOCKS, b"x")


def test_the_largest_frame_fits_an_empty_queue_of_each_class_that_may_carry_it() -> None:
    assert all(QUEUE_LIMITS[queue].bytes_max >= FRAME_BYTES_MAX for queue in (QueueClass.CONSENSUS, QueueClass.BLOCKS))


def test_what_waits_for_one_peer_alone_is_counted_over_all_outboxes_until_it_leaves_or_is_dropped() -> None:
    held = Held()
    one, other = Outbox(held), Outbox(held)
    assert one.offer(QueueClass.BLOCKS, b"block")
    assert one.offer(QueueClass.CONSENSUS, b"proposal", is_shared=True)
    assert other.offer(QueueClass.TRANSACTIONS, b"document")
    assert (held.size_bytes, one.held_bytes, other.held_bytes) == (13, 5, 8)
    assert one.take() == b"proposal"
    assert held.size_bytes == 13
    assert one.take() == b"block"
    assert (held.size_bytes, one.held_bytes) == (8, 0)
    other.clear()
    assert (held.size_bytes, other.held_bytes) == (0, 0)
    assert drain(other) == []
    assert other.offer(QueueClass.BLOCKS, bytes(QUEUE_LIMITS[QueueClass.BLOCKS].bytes_max))  # all its room is free
    assert not other.offer(QueueClass.BLOCKS, b"more")  # and what it holds no room for is not counted
    assert held.size_bytes == QUEUE_LIMITS[QueueClass.BLOCKS].bytes_max
