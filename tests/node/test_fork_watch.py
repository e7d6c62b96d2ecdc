"""A node finds out that a peer holds another chain; a peer that only says so is a liar; and neither costs it much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

import pytest

from consensus.codec import encode_message
from consensus.messages import ChainContext, CommitCertificate, CommitSignature, DuplicateVote
from ledger.block import compute_block_id, decode_block, encode_block
from ledger.primitives import PublicKey, Signature, sha256
from ledger.storage import BLOCKS, MemoryStore, Store, format_height
from node import chain_store
from node.effects import Blame, Effect, EvidenceNoted, ForkSeen, Send
from node.evidence import EvidencePool
from node.fork_watch import ANSWER_TIMEOUT_MS, CHECK_AGAIN_MS, CHECK_EVERY_MS, ForkWatch
from node.forks import FORKS_MAX, Fork, compute_forgetting, list_fork_heights, list_forks, list_signers_of_both
from node.pruning import iterate_prune
from node.sync import Sync, collect_blocks
from p2p.messages import BlockRequest
from tests.node.fork_chain import CONTEXT, KEYS, STRANGERS, VALIDATORS, Branch, certify, make_fork, name_keys

PEER: Final = VALIDATORS[3].public_key
OTHER_PEER: Final = VALIDATORS[2].public_key
NOW_MS: Final = 1_700_000_100_000

Items = tuple[tuple[bytes, bytes], ...]
Answer = Callable[[BlockRequest], Items | None]  # None: silence


def serve(branch: Branch) -> Answer:
    """What a peer with this chain answers."""
    return lambda request: collect_blocks(branch.store, request.from_height, request.count)


@dataclass
class World:
    """A watch over a store, and peers who answer it by script."""

    store: Store
    now_ms: int = NOW_MS
    evidence: EvidencePool = field(default_factory=EvidencePool)
    sync: Sync = field(default_factory=Sync)
    answers: dict[PublicKey, Answer] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)
    blames: list[str] = field(default_factory=list)
    seen: list[Fork] = field(default_factory=list)
    noted: list[DuplicateVote] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.watch = ForkWatch(self.store, CONTEXT, self.evidence, self.sync)

    def meet(self, answer: Answer, *, height: int, peer: PublicKey = PEER) -> World:
        """A peer connects, and all that follows within a second happens."""
        self.answers[peer] = answer
        self.watch.note_peer(peer, height)
        return self.tick()

    def tick(self, passed_ms: int = 1_000) -> World:
        self.now_ms += passed_ms
        self.perform(self.watch.tick(self.now_ms))
        return self

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(peer, BlockRequest() as request):
                    assert request.count == 1
                    self.asked.append(request.from_height)
                    items = self.answers[peer](request)
                    if items is not None:
                        follows = self.watch.take(peer, items, self.now_ms)
                        assert follows is not None
                        self.perform(follows)
                case Blame(_, reason, _):
                    self.blames.append(reason)
                case ForkSeen(fork, changes):
                    self.store.write(changes)
                    self.seen.append(fork)
                case EvidenceNoted(DuplicateVote() as duplicate):
                    self.noted.append(duplicate)
                case _:
                    raise AssertionError(effect)


def test_an_honest_peer_is_asked_for_one_block_and_nothing_follows() -> None:
    trunk = Branch().grow(5)
    world = World(trunk.store).meet(serve(trunk.copy()), height=5)
    assert (world.asked, world.blames, world.seen) == ([5], [], [])


@pytest.mark.parametrize(("height", "asked"), [(3, [3]), (5, [5]), (9, [5]), (0, [])])
def test_the_lower_of_the_two_tips_is_asked_for(height: int, asked: list[int]) -> None:
    trunk = Branch().grow(5)
    assert World(trunk.store).meet(serve(trunk.copy()), height=height).asked == asked


def test_right_after_genesis_there_is_nothing_to_compare() -> None:
    assert World(Branch().store).meet(serve(Branch().grow(5)), height=5).asked == []


@pytest.mark.parametrize(("ours", "theirs"), [(1, 1), (2, 2), (7, 2), (2, 7), (6, 6)])
def test_a_fork_is_found_at_the_height_where_the_chains_part(ours: int, theirs: int) -> None:
    mine, other = make_fork(common=3, ours=ours, theirs=theirs)
    world = World(mine.store).meet(serve(other), height=other.height)
    (fork,) = world.seen
    assert (fork.height, fork.is_first, fork.peer, fork.seen_ms) == (4, True, PEER, world.now_ms)
    assert fork.ours.compute_block_id() == mine.block_id(4)
    assert fork.theirs.compute_block_id() == other.block_id(4)
    assert world.blames == []
    assert len(world.asked) <= 5


def test_who_signed_both_in_one_round_is_proven_guilty_and_becomes_evidence() -> None:
    mine, other = make_fork()
    world = World(mine.store).meet(serve(other), height=5)
    assert {one.first.voter for one in world.noted} == name_keys((1, 2))
    assert {key for key, _, _ in world.evidence._held} == name_keys((1, 2))


def test_who_signed_both_in_two_rounds_is_only_suspected() -> None:
    mine, other = make_fork(round_=1)
    world = World(mine.store).meet(serve(other), height=5)
    (fork,) = world.seen
    assert set(list_signers_of_both(fork.ours, fork.theirs)) == name_keys((1, 2))
    assert world.noted == []
    assert world.evidence._held == {}


def test_each_of_the_two_sides_finds_the_same_fork() -> None:
    mine, other = make_fork(ours=4, theirs=2)
    here, there = World(mine.store).meet(serve(other), height=5), World(other.store).meet(serve(mine), height=7)
    ((one,), (two,)) = here.seen, there.seen
    assert (one.ours, one.theirs) == (two.theirs, two.ours)
    assert {duplicate.first.voter for duplicate in there.noted} == name_keys((1, 2))


def forge(certificate: CommitCertificate) -> CommitCertificate:
    first, *rest = certificate.signatures
    return replace(certificate, signatures=(CommitSignature(first.voter, Signature(b"forged.." * 8)), *rest))


FOREIGN_CHAIN: Final = ChainContext("another", CONTEXT.genesis_hash)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda block_id: forge(certify(4, block_id, KEYS[:3])), "certificate_signature_invalid"),
        (lambda block_id: certify(4, block_id, KEYS[:2]), "certificate_signatures_too_few"),
        (lambda block_id: certify(4, block_id, (KEYS[0], KEYS[1], KEYS[1])), "certificate_signer_repeated"),
        (lambda block_id: certify(4, block_id, STRANGERS[:3]), "certificate_signer_unknown"),
        (lambda block_id: certify(5, block_id, KEYS[:3]), "certificate_of_another_height"),
        (lambda block_id: certify(4, block_id, KEYS[:3], context=FOREIGN_CHAIN), "certificate_of_another_chain"),
        (lambda _: certify(4, make_fork()[0].block_id(4), KEYS[:3]), "certificate_of_another_block"),
    ],
)
def test_another_block_without_a_valid_certificate_is_a_lie_and_no_alarm(
    make: Callable[..., CommitCertificate], reason: str
) -> None:
    mine, other = make_fork(ours=1, theirs=1)
    other.certify_again(4, make(other.block_id(4)))
    world = World(mine.store).meet(serve(other), height=4)
    assert (world.blames, world.seen, list_fork_heights(mine.store)) == ([reason], [], [])
    assert world.tick(CHECK_AGAIN_MS).asked == [4]


@pytest.mark.parametrize("certificate", [b"", b"\x00", b"\x93" * 90])
def test_a_certificate_that_is_none_is_a_lie_too(certificate: bytes) -> None:
    mine, other = make_fork(ours=1, theirs=1)
    ((block, _),) = collect_blocks(other.store, 4, 1)
    world = World(mine.store).meet(lambda _: ((block, certificate),), height=4)
    assert len(world.blames) == 1
    assert world.seen == []


def test_the_validators_of_another_height_cannot_sign_for_this_one() -> None:
    mine, other = make_fork(ours=1, theirs=1)
    mine.change_validators(STRANGERS, from_height=4)
    world = World(mine.store).meet(serve(other), height=4)
    assert (world.blames, world.seen) == (["certificate_signer_unknown"], [])


def test_the_validators_of_that_height_sign_for_it_whoever_decides_now() -> None:
    mine, other = make_fork(ours=1, theirs=1)
    mine.change_validators(STRANGERS, from_height=5)
    world = World(mine.store).meet(serve(other), height=4)
    assert [fork.height for fork in world.seen] == [4]


def test_a_branch_whose_later_blocks_others_sign_is_proven_where_it_parts() -> None:
    mine, other = make_fork(common=3, ours=3, theirs=3)
    ((block, _),) = collect_blocks(other.store, 6, 1)
    whole = decode_block(block)
    header = replace(whole.header, validators_hash=sha256(b"those whom they have voted in"))
    top = (
        encode_block(replace(whole, header=header)),
        encode_message(certify(6, compute_block_id(header), STRANGERS[:3])),
    )
    world = World(mine.store)
    world.meet(lambda request: (top,) if request.from_height == 6 else serve(other)(request), height=6)
    assert [(fork.height, fork.is_first) for fork in world.seen] == [(4, True)]
    assert world.blames == []


@pytest.mark.parametrize("who", ["we", "the peer"])
def test_a_branch_of_others_whose_parting_cannot_be_seen_proves_nothing_and_is_no_lie(who: str) -> None:
    mine, other = make_fork(common=2, ours=8, theirs=8)
    prune(mine.store if who == "we" else other.store, 6)

    def answer(request: BlockRequest) -> Items:
        if not collect_blocks(other.store, request.from_height, 1):
            return ()
        whole = decode_block(collect_blocks(other.store, request.from_height, 1)[0][0])
        header = replace(whole.header, validators_hash=sha256(b"those whom they have voted in"))
        certificate = certify(header.height, compute_block_id(header), STRANGERS[:3])
        return ((encode_block(replace(whole, header=header)), encode_message(certificate)),)

    world = World(mine.store).meet(answer, height=10)
    assert world.asked[0] == 10
    assert (world.blames, world.seen) == ([], [])


def test_a_liar_that_names_other_validators_is_found_out_where_its_chain_would_part() -> None:
    mine, other = make_fork(common=3, ours=3, theirs=3)

    def lie(request: BlockRequest) -> Items:
        ((block, certificate),) = collect_blocks(other.store, request.from_height, 1)
        header = decode_block(block).header
        fake = replace(header, validators_hash=header.state_root, parent_id=header.state_root)
        return ((encode_block(replace(decode_block(block), header=fake)), certificate),)

    world = World(mine.store).meet(lie, height=6)
    assert world.blames == ["certificate_of_another_block"]
    assert world.seen == []


def test_who_lies_only_below_a_proven_block_is_still_reported() -> None:
    mine, other = make_fork(common=1, ours=8, theirs=8)
    for height in range(2, 9):
        other.certify_again(height, forge(certify(height, other.block_id(height), KEYS[:3])))
    world = World(mine.store).meet(serve(other), height=9)
    assert [(fork.height, fork.is_first) for fork in world.seen] == [(9, False)]


def test_a_peer_that_falls_silent_in_the_middle_does_not_take_the_proof_away() -> None:
    mine, other = make_fork(common=1, ours=8, theirs=8)
    world = World(mine.store)
    world.meet(lambda request: serve(other)(request) if request.from_height == 9 else None, height=9)
    assert world.seen == []
    world.tick(ANSWER_TIMEOUT_MS + 1)
    assert [(fork.height, fork.is_first) for fork in world.seen] == [(9, False)]


def test_a_peer_that_leaves_in_the_middle_does_not_take_the_proof_away() -> None:
    mine, other = make_fork(common=1, ours=8, theirs=8)
    world = World(mine.store)
    world.meet(lambda request: serve(other)(request) if request.from_height == 9 else None, height=9)
    world.perform(world.watch.note_gone(PEER))
    assert [(fork.height, fork.is_first) for fork in world.seen] == [(9, False)]
    assert world.watch.note_gone(PEER) == []


def prune(store: MemoryStore, line: int) -> None:
    for batch in iterate_prune(store, line=line):
        store.write(batch)


def test_below_what_we_keep_nothing_is_asked() -> None:
    trunk = Branch().grow(8)
    other = trunk.copy()
    prune(trunk.store, 5)
    assert World(trunk.store).meet(serve(other), height=4).asked == []
    assert World(trunk.store).meet(serve(other), height=5).asked == [5]


@pytest.mark.parametrize("who", ["we", "the peer"])
def test_a_fork_below_what_is_kept_is_reported_at_the_lowest_height_that_can_be_seen(who: str) -> None:
    mine, other = make_fork(common=2, ours=8, theirs=8)
    prune(mine.store if who == "we" else other.store, 6)
    world = World(mine.store).meet(serve(other), height=10)
    assert [(fork.height, fork.is_first) for fork in world.seen] == [(6, False)]
    assert world.blames == []


def test_a_peer_that_has_nothing_of_what_it_claims_is_let_be() -> None:
    trunk = Branch().grow(5)
    world = World(trunk.store).meet(lambda _: (), height=5)
    assert (world.asked, world.blames, world.seen) == ([5], [], [])


def test_a_silent_peer_is_asked_again_only_when_its_turn_comes() -> None:
    world = World(Branch().grow(5).store).meet(lambda _: None, height=5)
    for _ in range(60):
        world.tick()
    assert world.asked == [5]
    world.tick(CHECK_EVERY_MS - 60_000 - 1)
    assert world.asked == [5]
    assert world.tick(1).asked == [5, 5]


def test_each_peer_is_checked_every_few_minutes_and_no_two_in_one_second() -> None:
    trunk = Branch().grow(5)
    world = World(trunk.store)
    for key in KEYS[1:]:
        world.answers[key.public_key] = serve(trunk.copy())
        world.watch.note_peer(key.public_key, 5)
    for turn in range(1, len(KEYS)):
        assert len(world.tick().asked) == turn
    for _ in range(100):
        world.tick()
    assert len(world.asked) == len(KEYS) - 1
    for _ in range(CHECK_EVERY_MS // 1_000):
        world.tick()
    assert len(world.asked) == 2 * (len(KEYS) - 1)


def test_a_peer_that_reconnects_again_and_again_is_not_checked_each_time() -> None:
    trunk = Branch().grow(5)
    world = World(trunk.store)
    for _ in range(20):
        world.meet(serve(trunk.copy()), height=5)
        world.perform(world.watch.note_gone(PEER))
    assert world.asked == [5]
    world.meet(serve(trunk.copy()), height=5).tick(CHECK_AGAIN_MS)
    assert world.asked == [5, 5]


def test_a_peer_that_urges_all_the_time_is_asked_twice_a_minute() -> None:
    trunk = Branch().grow(5)
    world = World(trunk.store).meet(serve(trunk.copy()), height=5)
    for _ in range(60):
        world.perform(world.watch.urge(PEER, 5, world.now_ms))
        world.tick()
    assert len(world.asked) == 1 + 60_000 // CHECK_AGAIN_MS


def test_a_peer_that_builds_on_another_block_is_asked_for_it_at_once() -> None:
    mine, other = make_fork(ours=1, theirs=1)
    world = World(mine.store).meet(serve(other), height=0)
    world.perform(world.watch.urge(PEER, 4, world.now_ms))
    assert [fork.height for fork in world.seen] == [4]


def test_a_stranger_who_urges_is_nobody() -> None:
    assert World(Branch().grow(5).store).watch.urge(PEER, 5, NOW_MS) == []


def test_a_search_ends_whatever_a_peer_answers() -> None:
    mine, other = make_fork(common=1, ours=40, theirs=40)
    numbers = iter(range(10**6))

    def waver(request: BlockRequest) -> Items:
        branch = mine if next(numbers) % 3 == 1 else other
        return collect_blocks(branch.store, request.from_height, 1)

    world = World(mine.store).meet(waver, height=41)
    assert len(world.asked) <= 7  # 41 heights have six bits
    assert len(world.seen) == 1


def test_what_was_not_asked_for_is_left_to_the_catching_up() -> None:
    mine, other = make_fork(ours=3, theirs=3)
    world = World(mine.store)
    below, block, above = collect_blocks(other.store, 4, 3)
    assert world.watch.take(PEER, (block,), NOW_MS) is None  # nobody has asked
    world.meet(lambda _: None, height=5)
    assert world.asked == [5]
    assert world.watch.take(PEER, (block, above), NOW_MS) is None  # more than was asked for
    assert world.watch.take(PEER, (below,), NOW_MS) is None  # of another height
    assert world.watch.take(PEER, ((b"\x92\xc1", b""),), NOW_MS) is None  # no block
    assert world.watch.take(OTHER_PEER, (block,), NOW_MS) is None  # of another peer
    assert world.watch.take(PEER, (block,), NOW_MS) is not None


def test_a_peer_whose_blocks_are_awaited_is_not_asked_for_another() -> None:
    trunk = Branch().grow(5)
    world = World(trunk.store)
    world.sync.note_peer(PEER, 9)
    assert world.sync.find_next_ask(5, NOW_MS) is not None
    assert world.meet(serve(trunk.copy()), height=9).asked == []
    world.sync.take_blocks(PEER, ())
    assert world.tick().asked == [5]


def test_who_follows_another_chain_is_not_asked_for_blocks_until_it_follows_ours() -> None:
    mine, other = make_fork(ours=1, theirs=9)
    world = World(mine.store)
    world.sync.note_peer(PEER, 12)
    world.meet(serve(other), height=12)
    world.sync.note_height(PEER, 13)
    assert world.sync.find_next_ask(4, world.now_ms) is None
    world.sync.take_blocks(PEER, collect_blocks(other.store, 5, 2))
    assert not world.sync.queue
    world.answers[PEER] = serve(mine.copy())
    world.tick(CHECK_EVERY_MS)
    world.sync.note_height(PEER, 13)
    assert world.sync.find_next_ask(4, world.now_ms) is not None
    world.sync.take_blocks(PEER, collect_blocks(other.store, 5, 2))
    assert len(world.sync.queue) == 2


def test_who_is_gone_begins_anew() -> None:
    mine, other = make_fork(ours=1, theirs=9)
    world = World(mine.store).meet(serve(other), height=12)
    world.sync.note_gone(PEER)
    world.sync.note_peer(PEER, 12)
    assert world.sync.find_next_ask(4, world.now_ms) is not None


def test_a_clock_that_is_set_back_holds_nothing_up() -> None:
    trunk = Branch().grow(5)
    world = World(trunk.store).meet(serve(trunk.copy()), height=5)
    assert world.tick(-10 * CHECK_EVERY_MS).asked == [5, 5]


def test_a_report_survives_a_restart_and_is_not_made_twice() -> None:
    mine, other = make_fork()
    kept = World(mine.store).meet(serve(other), height=5).seen
    again = World(mine.store)
    assert list(list_forks(mine.store)) == kept
    assert {key for key, _, _ in again.evidence._held} == name_keys((1, 2))
    assert again.meet(serve(other), height=5).seen == []
    assert list(list_forks(mine.store)) == kept


def test_forks_are_kept_in_a_bounded_number_and_the_first_of_each_height() -> None:
    trunk = Branch().grow(FORKS_MAX + 4)
    world = World(trunk.store)
    for number in range(FORKS_MAX + 3):
        branch = Branch().grow(number)
        peer = PublicKey(bytes([number + 1]) * 32)
        branch.grow(1, signers=(1, 2, 3), step_ms=501)
        world.meet(serve(branch), height=branch.height, peer=peer)
    assert list_fork_heights(trunk.store) == list(range(1, FORKS_MAX + 1))
    third = Branch().grow(1, step_ms=777)
    world.meet(serve(third), height=1, peer=PublicKey(bytes([99]) * 32))
    assert world.blames == []
    assert next(list_forks(trunk.store)).peer == PublicKey(bytes([1]) * 32)


def test_a_fork_that_grows_beyond_what_is_kept_is_one_fork() -> None:
    mine, other = make_fork(common=2, ours=8, theirs=8)
    world = World(mine.store).meet(serve(other), height=4)
    prune(other.store, 6)
    world.watch.note_height(PEER, 10)
    world.tick(CHECK_EVERY_MS)
    assert list_fork_heights(mine.store) == [3]


def test_forgetting_takes_the_alarm_off_and_a_peer_that_still_differs_raises_it_again() -> None:
    mine, other = make_fork()
    World(mine.store).meet(serve(other), height=5)
    mine.store.write(compute_forgetting(mine.store))
    assert list_fork_heights(mine.store) == []
    assert len(World(mine.store).meet(serve(other), height=5).seen) == 1


def test_a_pruned_peer_serves_no_header_for_a_block() -> None:
    trunk = Branch().grow(6)
    trunk.store.write({chain_store.HANDOVERS + format_height(3): b""})
    prune(trunk.store, 5)
    assert trunk.store.get(BLOCKS + format_height(3)) is not None
    assert collect_blocks(trunk.store, 3, 4) == ()
    assert len(collect_blocks(trunk.store, 5, 4)) == 2
