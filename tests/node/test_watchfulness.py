"""A key whose journal is lost or old watches before it signs: ten quiet heights, seen as they happen, and a word."""

from __future__ import annotations

from typing import Final

import pytest

from consensus.messages import SignedProposal, Status, Step, VoteKind, VoteSummary
from consensus.watchfulness import QUIET_HEIGHTS, Watchfulness
from contracts_native.table import load_table
from ledger.primitives import Height
from node.core import Core
from node.core_config import CoreConfig
from node.inputs import Started
from tests.simulator.checkers import check_agreement, check_nothing_signed_twice
from tests.simulator.cluster import PARAMETERS, Cluster, make_key

LOST: Final = 3  # the node that lost its journal
LONG_MS: Final = 200_000


def restart_watching(net: Cluster, *, is_permitted: bool, of: int = LOST, is_fresh: bool = False) -> Watchfulness:
    """Start node ``LOST`` without its journal; it watches the key of node ``of``."""
    node = net[LOST]
    node.lose_journal()
    key = node.key
    watch = Watchfulness(make_key(f"validator {of}").public_key, is_permitted=is_permitted, is_fresh=is_fresh)
    config = CoreConfig(own_key=key.public_key, sign=key.sign, consensus=PARAMETERS, watch=watch)
    node.core = Core(config, node.store, load_table(), journal_frames=[])
    node.life += 1
    node.tell(Started())
    node.tick()
    net._connect(LOST)
    return watch


def list_signed_heights(net: Cluster, since: int) -> list[int]:
    """The heights that node ``LOST`` signed something for, from the given place of the log on."""
    key = net[LOST].key.public_key
    heights = set()
    for _, signed in net.observed.sent[since:]:
        if isinstance(signed, SignedProposal):
            heights |= {signed.proposal.height} if signed.proposer == key else set()
        else:
            heights |= {signed.vote.height} if signed.voter == key else set()
    return sorted(heights)


def test_it_signs_again_after_ten_heights_that_it_saw_and_its_key_was_silent_in() -> None:
    net = Cluster(validators=4, seed=41)
    net.run_until(height=3)
    net.crash(LOST)
    net.run_until(height=6)
    mark, head = len(net.observed.sent), net[0].height
    watch = restart_watching(net, is_permitted=True)
    net.run_until(height=head + QUIET_HEIGHTS + 6)
    heights = list_signed_heights(net, mark)
    assert watch.may_sign
    assert heights[0] > head + QUIET_HEIGHTS
    check_agreement(net)
    check_nothing_signed_twice(net)


def test_without_the_operators_word_it_never_signs() -> None:
    net = Cluster(validators=4, seed=42)
    net.run_until(height=3)
    net.crash(LOST)
    mark = len(net.observed.sent)
    restart_watching(net, is_permitted=False)
    net.run_until(height=net[0].height + 2 * QUIET_HEIGHTS, within_ms=LONG_MS)
    assert list_signed_heights(net, mark) == []
    assert net[LOST].height >= 2 * QUIET_HEIGHTS  # it follows all the same


def test_as_long_as_another_node_signs_with_its_key_it_stays_silent() -> None:
    net = Cluster(validators=7, seed=43)
    net.run_until(height=3)
    net.crash(LOST)
    mark = len(net.observed.sent)
    watch = restart_watching(net, is_permitted=True, of=5)  # as if node 5 were its twin
    net.run_until(height=net[0].height + 2 * QUIET_HEIGHTS, within_ms=LONG_MS)
    assert list_signed_heights(net, mark) == []
    assert watch.quiet_heights <= 1
    net.crash(5)
    net.run_until(height=net[0].height + QUIET_HEIGHTS + 4)
    assert list_signed_heights(net, mark) != []
    check_agreement(net)


def test_heights_that_were_caught_up_with_do_not_count() -> None:
    net = Cluster(validators=4, seed=44)
    net.run_until(height=2)
    net.crash(LOST)
    net.run_until(height=2 + 2 * QUIET_HEIGHTS, within_ms=LONG_MS)
    head = net[0].height
    watch = restart_watching(net, is_permitted=True)
    net.run_until(height=head)
    assert not watch.may_sign
    assert watch.quiet_heights < QUIET_HEIGHTS // 2


def test_where_every_vote_is_needed_the_operators_word_is_enough() -> None:
    net = Cluster(validators=3, seed=45)
    validators = net[0].core.validators if net[0].core else None
    assert validators is not None
    assert validators.f == 0
    for is_permitted in (True, False):
        watch = Watchfulness(make_key("validator 2").public_key, is_permitted=is_permitted)
        watch.note_height(None, Height(8), validators)
        assert watch.may_sign == is_permitted


@pytest.mark.parametrize(("height", "may_sign"), [(0, True), (QUIET_HEIGHTS, True), (QUIET_HEIGHTS + 1, False)])
def test_a_fresh_home_signs_at_once_only_on_a_young_chain(height: int, may_sign: bool) -> None:
    net = Cluster(validators=4, seed=46)
    core = net[0].core
    assert core is not None
    watch = Watchfulness(make_key("validator 0").public_key, is_permitted=True, is_fresh=True)
    watch.note_chain(height)
    watch.note_height(None, Height(1), core.validators)
    assert watch.may_sign == may_sign


def test_a_fresh_home_says_nothing_before_it_has_heard_from_a_peer() -> None:
    net = Cluster(validators=4, seed=47)
    net.isolate(LOST)
    net.run_until(height=QUIET_HEIGHTS + 3)
    net.crash(LOST)
    net[LOST].store.write(dict(Cluster(validators=4, seed=47)[LOST].store.scan(b"", b"\xff")))
    mark = len(net.observed.sent)
    net.isolate(LOST)
    assert net[LOST].height == 0
    watch = restart_watching(net, is_permitted=True, is_fresh=True)
    assert list_signed_heights(net, mark) == []
    net.heal()
    net.run_until(height=net[0].height + 3)
    assert list_signed_heights(net, mark) == []  # its key may have been part of that chain
    assert not watch.is_fresh


def test_a_peer_that_holds_a_vote_of_the_key_breaks_the_silence() -> None:
    net = Cluster(validators=4, seed=48)
    core = net[0].core
    assert core is not None
    watch = Watchfulness(make_key("validator 2").public_key, is_permitted=True)
    status = Status(Height(1), 0, Step.PREVOTE, False, (VoteSummary(0, VoteKind.PREVOTE, None, 0b0100),), ())
    for voters, heard in ((0b1011, False), (0b0100, True)):
        watch._heard = False
        summary = VoteSummary(0, VoteKind.PREVOTE, None, voters)
        watch.note_status(Status(status.height, 0, status.step, False, (summary,), ()), core.validators)
        assert watch._heard == heard
