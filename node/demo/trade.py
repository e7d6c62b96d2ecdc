"""The market: money comes in as credits, energy is bought and paid for, and used hour by hour.

Owns the checks that no cent and no watt-hour is lost on the way. While claims go on, one validator is killed and
comes back.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from contracts_native.claims import ClaimEnergy
from contracts_native.credits import IssueCredits, TransferCredits
from contracts_native.lots import TransferEnergy
from node.demo import outage
from node.demo.data import QUARTERS_PER_HOUR
from node.demo.narrator import Step
from node.demo.network import Order
from node.demo.people import Person
from node.demo.plan import HourOfUse, Sale
from node.demo.stage import Stage, format_money

PAID_IN_STEP_CENTS: Final = 1_000
SPENDING_CENTS: Final = 8_000  # beyond the energy: a deposit, a bill
HOUR_MS: Final = 3_600_000
PURPOSE: Final = "own consumption of the hour"


async def pay_in(stage: Stage) -> None:
    """Each consumer's bank transfer becomes credits, under a payment reference that counts once."""
    needs_cents: dict[str, int] = defaultdict(int)
    for sale in stage.sales:
        needs_cents[sale.buyer] += sale.cents
    with stage.narrator.step("Money in", len(stage.cast.consumers)) as step:
        orders: list[Order] = []
        total_cents = 0
        for number, one in enumerate(stage.cast.consumers, start=1):
            cents = -(-(needs_cents[one.place.name] + SPENDING_CENTS) // PAID_IN_STEP_CENTS) * PAID_IN_STEP_CENTS
            total_cents += cents
            orders.append(Order(IssueCredits(one.address, cents, f"bank transfer {number:04}"), stage.cast.utility))
        await stage.network.submit_all(orders, step.advance)
        balances_cents = sum([await stage.get_balance_cents(one.address) for one in stage.cast.consumers])
        stage.checks.compare("consumers' credits = money they paid in", balances_cents, total_cents, unit="cents")
        step.text = f"{len(orders)} consumers pay {format_money(total_cents)} in; the utility issues as much in credits"


async def buy(stage: Stage) -> None:
    """Each day's purchases: the buyer pays the seller, the seller hands the slices over."""
    orders = [order for sale in stage.sales for order in _make_sale(stage, sale)]
    before_cents = sum([await stage.get_balance_cents(one.address) for one in stage.cast.consumers])
    with stage.narrator.step("Trade", len(orders)) as step:
        await stage.network.submit_all(orders, step.advance)
        received_cents = sum([await stage.get_balance_cents(one.address) for one in stage.cast.producers])
        left_cents = sum([await stage.get_balance_cents(one.address) for one in stage.cast.consumers])
        compare = stage.checks.compare
        compare(
            "credits spent by buyers = received by sellers", before_cents - left_cents, received_cents, unit="cents"
        )
        held_wh = sum([await get_held_wh(stage, one) for one in stage.cast.consumers])
        sold_wh = sum(part.wh for sale in stage.sales for part in sale.parts)
        compare("energy that buyers hold = what was sold", held_wh, sold_wh, unit="Wh")
        step.text = (
            f"{sold_wh:,} Wh change hands for {format_money(received_cents)}: {len(stage.sales):,} daily sales of "
            f"{sum(len(sale.parts) for sale in stage.sales):,} slices"
        )


async def use(stage: Stage) -> None:
    """Each buyer claims each hour's slices against its own meter; in the middle a validator is gone for a while."""
    orders = [_make_claim(stage, one) for one in stage.hours]
    third = max(1, len(orders) // 3)
    with stage.narrator.step("Hourly claims", len(orders)) as step:

        async def claim(first: int, stop: int) -> None:
            await stage.network.submit_all(orders[first:stop], step.advance)

        await claim(0, third)
        lost = await outage.kill_during(stage, lambda: claim(third, 2 * third))
        await outage.restart_during(stage, lost, lambda: claim(2 * third, len(orders)))
        await _compare_claims(stage, step)
    await outage.compare_return(stage, lost)


async def get_held_wh(stage: Stage, person: Person) -> int:
    """The Wh that a participant holds and has not used, by a node's answer."""
    answer = await stage.network.ask().energy_balance(person.address_text)
    return int(answer["active_wh"])


async def _compare_claims(stage: Stage, step: Step) -> None:
    claimed_wh = held_wh = hourly_wh = consumed_wh = within = mixed = 0
    for one in stage.cast.consumers:
        balance = await stage.network.ask().energy_balance(one.address_text)
        claimed_wh += balance["claimed_wh"]
        held_wh += balance["active_wh"]
        traced = await stage.network.ask().trace_holder(one.address_text)
        mixed += len({source["technology"] for source in traced["sources"]}) > 1
        consumption = traced["consumption"]
        hourly_wh += consumption["claimed_hourly_wh"]
        consumed_wh += consumption["consumed_wh"]
        within += all(hour["claimed_wh"] <= hour["consumed_wh"] for hour in consumption["hours"])
    bought_wh = sum(part.wh for one in stage.hours for part in one.parts)
    compare = stage.checks.compare
    compare("energy used = energy bought", claimed_wh, bought_wh, unit="Wh")
    compare("energy that buyers still hold after that", held_wh, 0, unit="Wh")
    compare("energy matched to an hour of consumption = energy used", hourly_wh, claimed_wh, unit="Wh")
    compare("consumers with energy of more than one kind of source", mixed, len(stage.cast.consumers))
    compare("consumers whose every hour has claims ≤ consumption", within, len(stage.cast.consumers))
    step.text = (
        f"{len(stage.hours):,} claims with statement numbers; {claimed_wh:,} of {consumed_wh:,} Wh consumed are "
        f"matched, hour by hour"
    )


def _make_sale(stage: Stage, sale: Sale) -> list[Order]:
    """Payment and delivery under one reference."""
    buyer, seller = stage.cast.owners[sale.buyer], stage.cast.owners[sale.seller]
    reference = f"{sale.seller} to {sale.buyer}, day {sale.day + 1}"
    delivery = TransferEnergy(buyer.address, stage.make_refs(sale.parts), reference)
    orders = [Order(delivery, seller.key)]
    if sale.cents:
        orders.insert(0, Order(TransferCredits(seller.address, sale.cents, reference), buyer.key))
    return orders


def _make_claim(stage: Stage, one: HourOfUse) -> Order:
    buyer = stage.cast.owners[one.buyer]
    start_ms = stage.community.get_start_ms(one.hour * QUARTERS_PER_HOUR)
    claim = ClaimEnergy(
        slices=stage.make_refs(one.parts),
        beneficiary=buyer.address,
        purpose=PURPOSE,
        period_start_ms=start_ms,
        period_end_ms=start_ms + HOUR_MS,
        statement=f"{one.buyer}/hour {one.hour + 1}",
        consumption_meter=buyer.meter.meter_id,
    )
    return Order(claim, buyer.key)
