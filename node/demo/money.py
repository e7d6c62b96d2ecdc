"""Money out, and the security deposit: a redemption is paid out; a return is refused until the bill is paid.

Owns the checks on supply, on the deposit, and on the reason of the refusal.
"""

from __future__ import annotations

from typing import Final

from contracts_native.bills import BillLine, IssueBill, PayBill
from contracts_native.credits import ConfirmPayout, RedeemCredits
from contracts_native.escrow import ApproveReturn, LockEscrow, RequestReturn
from ledger.primitives import format_address
from ledger.transaction import make_object_id
from node.client import Answer, Submitted
from node.demo.data import QUARTERS_PER_DAY
from node.demo.narrator import Step
from node.demo.network import Order
from node.demo.people import Person
from node.demo.stage import Stage, format_money

DEPOSIT_CENTS: Final = 2_000
GRID_FEE_CENTS_PER_MWH: Final = 9_500
DUE_AFTER_MS: Final = 14 * 86_400_000


async def redeem(stage: Stage) -> None:
    """A prosumer turns credits into money: locked when asked for, burned when the payment is confirmed."""
    prosumer, cast, network = stage.pick_producer(), stage.cast, stage.network
    with stage.narrator.step("Redemption", 2) as step:
        paid_out_before_cents = await _get_paid_out_cents(stage)
        cents = await stage.get_balance_cents(prosumer.address)
        asked = await network.submit(Order(RedeemCredits(cast.utility.address, cents), prosumer.key))
        step.advance()
        redemption = _make_id("redemption", asked)
        locked_cents = await stage.get_balance_cents(prosumer.address)
        await network.submit(Order(ConfirmPayout(redemption, "bank payout 0001"), cast.fulfilment))
        step.advance()
        answer = await network.ask().redemption_list(holder=prosumer.address_text)
        burned_cents = await _get_paid_out_cents(stage) - paid_out_before_cents
        compare = stage.checks.compare
        compare("credits left to spend while the payout is on its way", locked_cents, 0, unit="cents")
        compare("status of the redemption", answer["redemptions"][-1]["status"], "paid")
        compare("credits burned = money paid out", burned_cents, cents, unit="cents")
        step.text = f"{prosumer.place.label} redeems {format_money(cents)} earned; fulfilment pays, the credits burn"


async def deposit(stage: Stage) -> None:
    """A deposit is lodged, asked for with a bill open (refused), and returned once the bill is paid."""
    consumer, cast, network = stage.pick_household(), stage.cast, stage.network
    with stage.narrator.step("Security deposit", 6) as step:
        before_cents = await stage.get_balance_cents(consumer.address)
        lock = LockEscrow(cast.utility.address, consumer.meter.meter_id, DEPOSIT_CENTS)
        escrow = _make_id("escrow", await network.submit(Order(lock, consumer.key)))
        step.advance()
        bill = await _issue_bill(stage, consumer)
        step.advance()
        await network.submit(Order(RequestReturn(escrow), consumer.key))
        step.advance()
        approval = Order(ApproveReturn(escrow), cast.utility)
        await stage.try_in_vain("a deposit returned with a bill open", approval, reason="dues_outstanding")
        step.advance()
        dues_cents = await _get_dues_cents(stage, consumer)
        await network.submit(Order(PayBill(bill, dues_cents), consumer.key))
        step.advance()
        await network.submit(approval)
        step.advance()
        answer = await network.ask().escrow_get(escrow.hex())
        after_cents = await stage.get_balance_cents(consumer.address)
        compare = stage.checks.compare
        compare("dues that the ledger computes after payment", await _get_dues_cents(stage, consumer), 0, unit="cents")
        compare("status of the deposit", answer["status"], "returned")
        compare("the depositor's credits = before less the bill", after_cents, before_cents - dues_cents, unit="cents")
        _tell_deposit(step, consumer, dues_cents)


async def _issue_bill(stage: Stage, consumer: Person) -> bytes:
    """The grid fee of all that the consumer's meter recorded, by the ledger's own sums."""
    community = stage.community
    answer: Answer = await stage.network.ask().trace_holder(consumer.address_text)
    line = BillLine(
        service_point=consumer.meter.meter_id,
        from_ms=community.start_ms,
        until_ms=community.get_start_ms(community.days * QUARTERS_PER_DAY),
        energy_wh=answer["consumption"]["consumed_wh"],
        price_cents_per_mwh=GRID_FEE_CENTS_PER_MWH,
    )
    status = await stage.network.ask().chain_status()
    bill = IssueBill(consumer.address, (line,), status["block_time_ms"] + DUE_AFTER_MS, "grid fee 0001")
    return _make_id("bill", await stage.network.submit(Order(bill, stage.cast.utility)))


async def _get_dues_cents(stage: Stage, consumer: Person) -> int:
    utility = format_address(stage.cast.utility.address)
    answer = await stage.network.ask().bill_dues(consumer=consumer.address_text, utility=utility)
    return int(answer["dues_cents"])


async def _get_paid_out_cents(stage: Stage) -> int:
    """The money paid out since genesis, which the audit tells."""
    answer = await stage.network.ask().chain_audit()
    parts = next(one["left_parts"] for one in answer["sums"] if "paid_out" in one["left_parts"])
    return -int(parts["paid_out"])


def _make_id(kind: str, submitted: Submitted) -> bytes:
    return make_object_id(kind, bytes.fromhex(submitted.tx_id))


def _tell_deposit(step: Step, consumer: Person, dues_cents: int) -> None:
    step.text = (
        f"{consumer.place.label} lodges {format_money(DEPOSIT_CENTS)} and asks for it with a bill of "
        f"{format_money(dues_cents)} open: the ledger refuses; pays; gets it back"
    )
