"""Credits: money attested once becomes credits, credits move whole, and leave as money or come back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from contracts_native.credits import (
    BALANCES,
    ISSUERS,
    PAYMENT_REFERENCES,
    REDEMPTION_TRANSITIONS,
    REDEMPTIONS,
    SUPPLY,
    Balance,
    ConfirmPayout,
    CreditsIssued,
    CreditsMoved,
    FailPayout,
    IssueCredits,
    Issuer,
    PaymentReference,
    RedeemCredits,
    RedemptionEnded,
    RedemptionRequested,
    RedemptionStatus,
    Supply,
    TransferCredits,
    compute_credit_sums,
    give,
)
from ledger.errors import NotPermitted
from ledger.fields import INTEGER_MAX
from ledger.primitives import format_address
from ledger.transaction import Payload
from tests.contracts_native.harness import (
    ADMIN,
    ALICE,
    BOB,
    CREDIT_LIMIT_CENTS,
    FULFILMENT,
    RIVAL,
    STRANGER,
    UTILITY,
    World,
)
from tests.contracts_native.money import balance, check_credits_conserved, pay_in


@pytest.fixture
def world() -> World:
    """Bob has paid 1000 cents in."""
    one = World()
    pay_in(one, BOB, 1_000)
    return one


def redeem(world: World, cents: int = 400) -> bytes:
    return world.apply(RedeemCredits(UTILITY.address, cents), by=BOB).make_id("redemption")


def status(world: World, redemption: bytes) -> RedemptionStatus:
    return REDEMPTIONS.get(world.state, redemption).status


# credit.issue


def test_money_attested_becomes_credits_and_counts_against_the_issuers_limit(world: World) -> None:
    applied = world.apply(IssueCredits(ALICE.address, 50, "bank 7"), by=UTILITY)
    assert applied.one(CreditsIssued) == CreditsIssued(UTILITY.address, ALICE.address, 50, "bank 7")
    assert balance(world, ALICE) == 50
    assert SUPPLY.get(world.state) == Supply(1_050, 0)
    assert ISSUERS.get(world.state, UTILITY.address) == Issuer(CREDIT_LIMIT_CENTS, 1_050)
    reference = PAYMENT_REFERENCES.get(world.state, UTILITY.address, "bank 7")
    assert reference == PaymentReference(UTILITY.address, ALICE.address, 50)
    check_credits_conserved(world.state)


def test_a_payment_is_attested_once_whoever_is_credited(world: World) -> None:
    world.apply(IssueCredits(ALICE.address, 50, "bank 7"), by=UTILITY)
    for holder, cents in ((ALICE, 50), (BOB, 1)):
        refusal = world.refuses(
            IssueCredits(holder.address, cents, "bank 7"), "payment_reference_already_used", by=UTILITY
        )
        assert refusal.item == "bank 7"


def test_an_issuer_stays_within_its_limit_to_the_cent(world: World) -> None:
    left = CREDIT_LIMIT_CENTS - 1_000
    world.refuses(IssueCredits(BOB.address, left + 1, "x"), "issuer_limit_exceeded", by=UTILITY)
    world.apply(IssueCredits(BOB.address, left, "x"), by=UTILITY)
    world.refuses(IssueCredits(BOB.address, 1, "y"), "issuer_limit_exceeded", by=UTILITY)


def test_only_an_authorised_issuer_issues(world: World) -> None:
    for who in (RIVAL, ADMIN):
        refusal = world.refuses(IssueCredits(BOB.address, 1, "x"), "issuer_not_authorised", by=who)
        assert isinstance(refusal, NotPermitted)
    world.refuses(IssueCredits(BOB.address, 1, "x"), "role_missing", by=BOB)


def test_credits_are_issued_to_nobody_unknown_or_frozen(world: World) -> None:
    world.refuses(IssueCredits(STRANGER.address, 1, "x"), "participant_unknown", by=UTILITY)
    world.freeze(ALICE)
    world.refuses(IssueCredits(ALICE.address, 1, "x"), "participant_frozen", by=UTILITY)


def test_the_supply_ends_where_numbers_end(world: World) -> None:
    ISSUERS.put(world.state, UTILITY.address, value=Issuer(INTEGER_MAX, 0))
    SUPPLY.put(world.state, value=Supply(INTEGER_MAX - 5, 0))
    world.commit()
    world.refuses(IssueCredits(BOB.address, 6, "x"), "credit_supply_too_large", by=UTILITY)
    BALANCES.put(world.state, BOB.address, value=Balance(INTEGER_MAX - 4))
    world.commit()
    world.refuses(IssueCredits(BOB.address, 5, "x"), "credit_balance_too_large", by=UTILITY)


# credit.transfer


def test_a_transfer_moves_credits_and_says_so(world: World) -> None:
    applied = world.apply(TransferCredits(ALICE.address, 300, "rent"), by=BOB)
    assert applied.one(CreditsMoved) == CreditsMoved(BOB.address, ALICE.address, 300, "rent")
    assert (balance(world, BOB), balance(world, ALICE)) == (700, 300)
    check_credits_conserved(world.state)


def test_a_transfer_of_everything_leaves_no_empty_balance_behind(world: World) -> None:
    world.apply(TransferCredits(ALICE.address, 1_000, ""), by=BOB)
    assert BALANCES.find(world.state, BOB.address) is None
    assert balance(world, BOB) == 0


def test_more_than_the_balance_does_not_move(world: World) -> None:
    refusal = world.refuses(TransferCredits(ALICE.address, 1_001, ""), "credits_not_sufficient", by=BOB)
    assert refusal.item == f"{format_address(BOB.address)} has 1000 cents, needs 1001"
    world.refuses(TransferCredits(ALICE.address, INTEGER_MAX, ""), "credits_not_sufficient", by=BOB)
    world.refuses(TransferCredits(BOB.address, 1, ""), "credits_not_sufficient", by=ALICE)


def test_credits_go_to_nobody_unknown_frozen_or_oneself(world: World) -> None:
    world.refuses(TransferCredits(STRANGER.address, 1, ""), "participant_unknown", by=BOB)
    world.refuses(TransferCredits(BOB.address, 1, ""), "recipient_is_sender", by=BOB)
    world.freeze(ALICE)
    world.refuses(TransferCredits(ALICE.address, 1, ""), "participant_frozen", by=BOB)


def test_a_frozen_or_unknown_holder_does_not_spend(world: World) -> None:
    world.refuses(TransferCredits(BOB.address, 1, ""), "signer_unknown", by=STRANGER)
    world.freeze(BOB)
    world.refuses(TransferCredits(ALICE.address, 1, ""), "participant_frozen", by=BOB)


# credit.redeem, credit.confirm_payout, credit.fail_payout


def test_a_redemption_locks_credits_until_they_are_paid_out_and_burned(world: World) -> None:
    applied = world.apply(RedeemCredits(UTILITY.address, 400), by=BOB)
    redemption = applied.make_id("redemption")
    assert applied.one(RedemptionRequested) == RedemptionRequested(redemption, BOB.address, UTILITY.address, 400)
    assert balance(world, BOB) == 600
    assert SUPPLY.get(world.state) == Supply(1_000, 0)
    check_credits_conserved(world.state)
    ended = world.apply(ConfirmPayout(redemption, "wire 9"), by=FULFILMENT).one(RedemptionEnded)
    assert (ended.status, ended.payout_reference, ended.holder) == (RedemptionStatus.PAID, "wire 9", BOB.address)
    assert ended.ended_by == FULFILMENT.address
    assert balance(world, BOB) == 600
    assert SUPPLY.get(world.state) == Supply(1_000, 400)
    assert ISSUERS.get(world.state, UTILITY.address).outstanding_cents == 600
    check_credits_conserved(world.state)


def test_a_failed_payout_gives_the_credits_back(world: World) -> None:
    redemption = redeem(world)
    ended = world.apply(FailPayout(redemption, "no such account"), by=FULFILMENT).one(RedemptionEnded)
    assert ended.status is RedemptionStatus.FAILED
    assert balance(world, BOB) == 1_000
    assert SUPPLY.get(world.state) == Supply(1_000, 0)
    assert REDEMPTIONS.get(world.state, redemption).payout_reference == "no such account"
    check_credits_conserved(world.state)


# Every pair of a status and a transaction, and where a redemption stands afterwards; what is absent is refused.

REQUESTED, PAID, FAILED = RedemptionStatus.REQUESTED, RedemptionStatus.PAID, RedemptionStatus.FAILED
ACTIONS: dict[str, Callable[[bytes], Payload]] = {
    "credit.confirm_payout": lambda redemption: ConfirmPayout(redemption, "x"),
    "credit.fail_payout": lambda redemption: FailPayout(redemption, "x"),
}
AFTER: dict[tuple[RedemptionStatus, str], RedemptionStatus] = {
    (REQUESTED, "credit.confirm_payout"): PAID,
    (REQUESTED, "credit.fail_payout"): FAILED,
}


@pytest.mark.parametrize("tag", ACTIONS)
@pytest.mark.parametrize("reached", RedemptionStatus)
def test_a_redemption_goes_only_where_the_domain_lets_it(world: World, reached: RedemptionStatus, tag: str) -> None:
    redemption = redeem(world)
    if reached is PAID:
        world.apply(ConfirmPayout(redemption, "one"), by=FULFILMENT)
    if reached is FAILED:
        world.apply(FailPayout(redemption, "one"), by=FULFILMENT)
    wanted = AFTER.get((reached, tag))
    if wanted is None:
        refusal = world.refuses(ACTIONS[tag](redemption), "redemption_already_ended", by=FULFILMENT)
        assert f"is {reached}" in refusal.item
    else:
        world.apply(ACTIONS[tag](redemption), by=FULFILMENT)
    assert status(world, redemption) is (wanted or reached)
    check_credits_conserved(world.state)


def test_the_table_says_what_was_walked() -> None:
    assert dict(REDEMPTION_TRANSITIONS) == AFTER


def test_only_what_a_holder_has_is_redeemed_and_only_from_an_issuer(world: World) -> None:
    world.refuses(RedeemCredits(UTILITY.address, 1), "credits_not_sufficient", by=ALICE)
    world.refuses(RedeemCredits(UTILITY.address, 1_001), "issuer_has_less_outstanding", by=BOB)
    world.refuses(RedeemCredits(RIVAL.address, 1), "issuer_not_authorised", by=BOB)
    world.refuses(RedeemCredits(STRANGER.address, 1), "participant_unknown", by=BOB)


def test_an_issuer_pays_out_no_more_than_it_has_outstanding(world: World) -> None:
    """Two issuers: Bob's credits came from both, but only so much from each."""
    ISSUERS.put(world.state, RIVAL.address, value=Issuer(limit_cents=10_000, outstanding_cents=0))
    world.commit()
    world.apply(IssueCredits(BOB.address, 500, "x"), by=RIVAL)
    first, second = (world.apply(RedeemCredits(RIVAL.address, 300), by=BOB).make_id("redemption") for _ in range(2))
    world.apply(ConfirmPayout(first, "one"), by=FULFILMENT)
    world.refuses(ConfirmPayout(second, "two"), "issuer_has_less_outstanding", by=FULFILMENT)
    world.apply(FailPayout(second, "ask the other issuer"), by=FULFILMENT)
    assert balance(world, BOB) == 1_200
    check_credits_conserved(world.state)


def test_only_the_fulfilment_manager_ends_a_redemption_and_never_its_own(world: World) -> None:
    redemption = redeem(world)
    for who in (BOB, UTILITY, ADMIN):
        world.refuses(ConfirmPayout(redemption, "x"), "role_missing", by=who)
        world.refuses(FailPayout(redemption, "x"), "role_missing", by=who)
    pay_in(world, FULFILMENT, 10)
    own = world.apply(RedeemCredits(UTILITY.address, 10), by=FULFILMENT).make_id("redemption")
    world.refuses(ConfirmPayout(own, "x"), "payout_to_oneself", by=FULFILMENT)
    world.apply(FailPayout(own, "x"), by=FULFILMENT)


def test_a_redemption_that_nobody_asked_for_is_unknown(world: World) -> None:
    world.refuses(ConfirmPayout(bytes(16), "x"), "redemption_unknown", by=FULFILMENT)
    world.refuses(FailPayout(bytes(16), "x"), "redemption_unknown", by=FULFILMENT)


def test_the_sums_name_every_place_where_credits_are(world: World) -> None:
    redeem(world, 100)
    world.apply(ConfirmPayout(redeem(world, 30), "x"), by=FULFILMENT)
    world.apply(FailPayout(redeem(world, 7), "x"), by=FULFILMENT)
    sums = compute_credit_sums(world.state)
    assert (sums.issued_cents, sums.paid_out_cents, sums.issuers_outstanding_cents) == (1_000, 30, 970)
    assert (sums.balances_cents, sums.redemptions_requested_cents) == (870, 100)


def test_the_audit_notices_a_credit_from_nowhere(world: World) -> None:
    give(world.state, ALICE.address, 1)
    with pytest.raises(AssertionError):
        check_credits_conserved(world.state)
