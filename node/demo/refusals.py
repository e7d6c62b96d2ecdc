"""What must not work, tried in earnest: each attempt is a signed transaction, and each is refused for its own reason.

Owns the attempts and the reasons that the ledger has to give.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from contracts_native.claims import ClaimEnergy
from contracts_native.credits import TransferCredits
from contracts_native.lots import TransferEnergy
from contracts_native.readings import SubmitReadings, sign_report
from node.demo.data import QUARTERS_PER_DAY
from node.demo.network import Order
from node.demo.stage import Stage, format_money
from node.keystore import SigningKey

FORGED_WH = 1_000  # what the forger adds to each quarter-hour


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is tried, and the reason for which it must be refused."""

    title: str
    order: Order
    reason: str


async def try_what_must_fail(stage: Stage) -> None:
    """Try each, and keep the ledger's reason."""
    attempts = [
        *_make_false_readings(stage),
        *_make_false_claims(stage),
        *await _make_false_transfers(stage),
    ]
    with stage.narrator.step("Fraud", len(attempts)) as step:
        for attempt in attempts:
            await stage.try_in_vain(attempt.title, attempt.order, reason=attempt.reason)
            step.advance()
        step.text = f"{len(attempts)} attempts, each signed and submitted in earnest; what the ledger said stands below"


def _make_false_readings(stage: Stage) -> Iterator[Attempt]:
    """A report changed after signing, one signed by another meter, one sent twice."""
    producer, community = stage.pick_producer(), stage.community
    other = next(
        one for one in stage.cast.producers if one.meter.key.scheme == producer.meter.key.scheme and one is not producer
    )
    start_ms = community.get_start_ms(community.days * QUARTERS_PER_DAY)
    honest = producer.meter.count(stage.network.chain_id, start_ms=start_ms, values_wh=[0] * QUARTERS_PER_DAY)
    forged = replace(
        honest,
        values_wh=tuple(wh + FORGED_WH for wh in honest.values_wh),
        register_end_wh=honest.register_end_wh + FORGED_WH * QUARTERS_PER_DAY,
    )
    relayed_by = stage.cast.oracle
    yield Attempt(
        "a reading raised after signing", Order(SubmitReadings((forged,)), relayed_by), "reading_signature_invalid"
    )
    message_key = other.meter.key
    stolen = sign_report(honest, stage.network.chain_id, message_key.sign)
    yield Attempt(
        "a reading signed by another meter", Order(SubmitReadings((stolen,)), relayed_by), "reading_signature_invalid"
    )
    again = stage.last_reports[producer.place.name]
    yield Attempt("a day's reading sent twice", Order(SubmitReadings((again,)), relayed_by), "sequence_not_rising")


def _make_false_claims(stage: Stage) -> Iterator[Attempt]:
    """The same watt-hours claimed a second time, by their owner and under a new number."""
    buyer = stage.pick_buyer()
    used = next(one for one in stage.hours if one.buyer == buyer.place.name)
    start_ms = stage.community.start_ms
    claim = ClaimEnergy(
        slices=stage.make_refs(used.parts),
        beneficiary=buyer.address,
        purpose="the same energy once more",
        period_start_ms=start_ms,
        period_end_ms=stage.community.get_start_ms(stage.community.days * QUARTERS_PER_DAY),
        statement="once more",
    )
    yield Attempt("watt-hours claimed twice", Order(claim, buyer.key), "slice_already_claimed")


async def _make_false_transfers(stage: Stage) -> list[Attempt]:
    """Credits beyond the balance, watt-hours that were never produced, watt-hours of another, a stranger."""
    buyer, producer = stage.pick_buyer(), stage.pick_producer()
    balance_cents = await stage.get_balance_cents(buyer.address)
    overspent = TransferCredits(producer.address, balance_cents + 1, "overspent")
    sold = next(part for sale in stage.sales for part in sale.parts if sale.seller == producer.place.name)
    produced_wh = producer.place.values_wh[sold.quarter]
    ref = stage.make_ref(sold)
    beyond = replace(ref, first_wh=produced_wh, end_wh=produced_wh + 1_000)
    stranger = SigningKey.generate()
    return [
        Attempt(
            f"{format_money(balance_cents + 1)} spent of {format_money(balance_cents)}",
            Order(overspent, buyer.key),
            "credits_not_sufficient",
        ),
        Attempt(
            "1,000 Wh sold that were never produced",
            Order(TransferEnergy(buyer.address, (beyond,), "thin air"), producer.key),
            "range_outside_lot",
        ),
        Attempt(
            "energy sold again after it was used",
            Order(TransferEnergy(stage.cast.utility.address, (ref,), "sold again"), producer.key),
            "slice_already_claimed",
        ),
        Attempt(
            "a transfer signed by a stranger's key",
            Order(TransferCredits(producer.address, 1, "stranger"), stranger),
            "signer_unknown",
        ),
    ]
