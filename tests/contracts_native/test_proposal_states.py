"""Where a proposal can stand: every pair of a status and of what may happen to it, walked."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from contracts_native.governance import (
    ITS_HEIGHT,
    PROPOSAL_TRANSITIONS,
    ProposalStatus,
    ShowReadiness,
    Vote,
)
from ledger.transaction import Payload
from tests.contracts_native.council import Council, make_change
from tests.contracts_native.harness import Person, make_person

OPEN, SCHEDULED, REJECTED = ProposalStatus.OPEN, ProposalStatus.SCHEDULED, ProposalStatus.REJECTED
IN_FORCE, VOID, LAPSED = ProposalStatus.IN_FORCE, ProposalStatus.VOID, ProposalStatus.LAPSED
NEWCOMER = make_person("newcomer")
HEIGHT = 40
LATER = 400


class Story:
    """Four validators, of which two approve the newcomer, who is ready; and a proposal of the same that stays open."""

    def __init__(self) -> None:
        self.council = Council(4)
        self.council.run_to(3)
        self.council.propose(make_change(LATER, add=NEWCOMER))
        self.proposal = self.council.propose(make_change(HEIGHT, add=NEWCOMER))
        self.council.make_ready(NEWCOMER)
        self.council.vote(self.proposal, 1)

    @property
    def status(self) -> ProposalStatus:
        return self.council.get_status(self.proposal)

    def bring_to(self, status: ProposalStatus) -> None:
        if status in (SCHEDULED, IN_FORCE, VOID):
            self.council.vote(self.proposal, 2)
        if status is REJECTED:
            self.council.vote(self.proposal, 2, 3, approves=False)
        if status is VOID:
            self.run_without_two()
        if status in (IN_FORCE, LAPSED):
            self.council.run_to(HEIGHT)
        assert self.status is status

    def run_without_two(self) -> None:
        """Up to the height, with only two of the four proposing: too few to go on as five."""
        while self.council.height < HEIGHT:
            self.council.block(proposer=self.council.members[self.council.height % 2])

    def act(self, payload: Payload, by: Person) -> list[str]:
        """A block with this; why it was refused."""
        return self.council.block(self.council.sign(payload, by))[1]

    def vote(self, *, approves: bool) -> list[str]:
        return self.act(Vote(self.proposal, approves), self.council.members[3])

    def show_readiness(self) -> list[str]:
        before = self.council.height - 1
        return self.act(ShowReadiness(before, self.council.find_id(before)), NEWCOMER)

    def reach_height(self) -> list[str]:
        self.council.run_to(max(HEIGHT, self.council.height))
        return []


ACTIONS: dict[str, Callable[[Story], list[str]]] = {
    "approve": lambda story: story.vote(approves=True),
    "refuse": lambda story: story.vote(approves=False),
    "ready": lambda story: story.show_readiness(),
    "height": lambda story: story.reach_height(),
}
VOTES = ("approve", "refuse")
AFTER: dict[ProposalStatus, dict[str, ProposalStatus]] = {
    OPEN: {"approve": SCHEDULED, "refuse": OPEN, "ready": OPEN, "height": LAPSED},
    SCHEDULED: {"height": IN_FORCE},
    IN_FORCE: {},
    VOID: {},
    REJECTED: {},
    LAPSED: {},
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("status", ProposalStatus)
def test_a_proposal_goes_only_where_the_domain_lets_it(status: ProposalStatus, action: str) -> None:
    story = Story()
    story.bring_to(status)
    wanted = AFTER[status].get(action)
    refused = ["proposal_not_open"] if wanted is None and action in VOTES else []
    assert ACTIONS[action](story) == refused
    assert story.status is (wanted or status)


def test_nothing_leaves_a_proposal_that_is_over() -> None:
    assert {status for status, _ in PROPOSAL_TRANSITIONS} == {OPEN, SCHEDULED}
    assert {tag for status, tag in PROPOSAL_TRANSITIONS if status is SCHEDULED} == {ITS_HEIGHT}


def test_a_candidate_that_two_proposals_would_add_joins_by_the_first_of_them() -> None:
    council = Council(4)
    council.run_to(3)
    late, early = (council.propose(make_change(height, add=NEWCOMER)) for height in (30, 20))
    council.vote(late, 1, 2)
    council.vote(early, 1, 2)
    council.make_ready(NEWCOMER)
    assert [council.get_status(one) for one in (late, early)] == [OPEN, SCHEDULED]
    council.make_ready(NEWCOMER)  # once more, in case: nothing changes
    assert [council.get_status(one) for one in (late, early)] == [OPEN, SCHEDULED]
    council.run_to(30)
    assert [council.get_status(one) for one in (late, early)] == [LAPSED, IN_FORCE]
    assert council.list_members() == ["v0", "v1", "v2", "v3", "newcomer"]


def test_refusals_that_too_few_members_outweigh_show_when_the_candidate_is_ready() -> None:
    council = Council(7)
    council.run_to(3)
    proposal = council.propose(make_change(60, add=NEWCOMER))
    council.vote(proposal, 1, 2, approves=False)  # two of seven do not stop it, two of six do
    removal = council.propose(make_change(12, remove=council.members[6]))
    council.vote(removal, 1, 2, 3, 4)
    council.run_to(12)
    assert council.get_status(proposal) is OPEN
    council.make_ready(NEWCOMER)
    assert council.get_status(proposal) is REJECTED
