"""Readings, registers, money, blocks, proofs and the audit say what the state has; refusals have names."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest

from contracts_native.bills import DisputeBill
from contracts_native.credits import IssueCredits, RedeemCredits, RedemptionStatus
from contracts_native.escrow import EscrowStatus, LockEscrow
from contracts_native.lots import MINTS, SLICES, LotId, LotSlices
from contracts_native.matching import CLAIMED, ClaimedWh
from contracts_native.meters import Channel
from contracts_native.participants import PARTICIPANTS, Role
from contracts_native.readings import Flag
from contracts_native.sites import Technology
from ledger.encoding import encode
from ledger.errors import Malformed, Rejected
from ledger.fields import Json, to_plain
from ledger.merkle import check_inclusion
from ledger.parameters import Parameters
from ledger.primitives import Hash
from ledger.state_root import StateProof, check_state_proof
from node.certificates import issue as issuing
from node.chain_store import load_tree
from node.queries import (
    audit,
    certificates,
    chain,
    credits,
    energy,
    participants,
    readings,
    sites,
    trace,
    trace_lot,
    view,
)
from node.queries.catalogue import QUERIES
from node.queries.errors import NotFound
from node.queries.lot_ids import format_lot_id
from node.queries.view import JsonObject, View
from tests.contracts_native import money
from tests.contracts_native.harness import ALICE, BOB, DAY_0_MS, QUARTER_MS, ROLES, STRANGER, UTILITY
from tests.node.certificate_chain import make_market
from tests.node.query_answers import Answer, claim, move, part, read_all, rows, text
from tests.node.query_chain import QueryChain

UNKNOWN_ID = bytes(16).hex()
UNKNOWN_HASH = bytes(32).hex()


def test_readings_say_what_became_of_each_interval() -> None:
    world = QueryChain()
    meter = world.register_meter(ALICE, world.register_site(ALICE))
    lots = world.produce(meter, 100, 2_751, 0)
    world.submit(meter.report(Channel.PRODUCTION, [40], flag=Flag.ESTIMATED))
    world.consume(meter, 30)
    found = rows(readings.reading_list(world.view, meter=meter.meter_id.hex()), "readings")
    assert [(row["channel"], row["wh"], row["state"], row["lot"]) for row in found] == [
        ("consumption", 30, "recorded", None),
        ("production", 100, "minted", format_lot_id(lots[0])),
        ("production", 2_751, "quarantined", None),
        ("production", 0, "minted", None),
        ("production", 40, "not_minted", None),
    ]
    for limit in (1, 2, 4):

        def ask(cursor: str | None, limit: int = limit) -> Answer:
            return readings.reading_list(world.view, meter=meter.meter_id.hex(), limit=limit, cursor=cursor)

        assert read_all(ask, "readings") == found
    some = readings.reading_list(
        world.view,
        meter=meter.meter_id.hex(),
        channel=Channel.PRODUCTION,
        from_ms=DAY_0_MS + 1,
        until_ms=DAY_0_MS + 3 * QUARTER_MS,
    )
    assert [row["wh"] for row in rows(some, "readings")] == [2_751, 0]


def test_sites_and_meters_are_found_by_owner_site_and_technology() -> None:
    world = QueryChain()
    first = world.register_site(ALICE)
    second = world.register_site(ALICE, technology=Technology.WIND, zone="FR")
    third = world.register_site(BOB)
    meter = world.register_meter(ALICE, second)

    def list_ids(**filters: object) -> list[Json]:
        ask = cast("Callable[..., JsonObject]", sites.site_list)
        return [row["site"] for row in rows(ask(world.view, **filters), "sites")]

    assert list_ids(owner=text(ALICE)) == [first.hex(), second.hex()]
    assert list_ids() == sorted(one.hex() for one in (first, second, third))
    assert list_ids(technology=Technology.WIND) == list_ids(zone="FR") == [second.hex()]
    assert list_ids(owner=text(BOB), utility=text(ALICE)) == []
    assert sites.site_get(world.view, site=second.hex())["meters"] == [meter.meter_id.hex()]
    assert sites.site_get(world.view, site=second.hex())["owner"] == text(ALICE)
    of_site = sites.meter_list(world.view, site=second.hex())
    assert [row["meter"] for row in rows(of_site, "meters")] == [meter.meter_id.hex()]
    assert rows(sites.meter_list(world.view, site=first.hex()), "meters") == []


def test_participants_come_in_pages_without_gap_or_repeat() -> None:
    world = QueryChain()
    for limit in (1, 2, 100):

        def ask(cursor: str | None, limit: int = limit) -> Answer:
            return participants.participant_list(world.view, limit=limit, cursor=cursor)

        found = [row["participant"] for row in read_all(ask, "participants")]
        assert len(found) == len(set(map(str, found))) == len(ROLES)
    utilities = rows(participants.participant_list(world.view, role=Role.UTILITY), "participants")
    assert {row["label"] for row in utilities} == {"utility", "rival"}
    assert participants.participant_get(world.view, participant=text(BOB))["label"] == "bob"


def test_a_page_reads_a_bounded_number_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "ROWS_READ_MAX", 2)
    world = QueryChain()

    def ask(cursor: str | None) -> Answer:
        answer = participants.participant_list(world.view, role=Role.UTILITY, cursor=cursor)
        assert len(rows(answer, "participants")) <= 2
        return answer

    assert {row["label"] for row in read_all(ask, "participants")} == {"utility", "rival"}


def test_money_is_told_as_the_ledger_has_it() -> None:
    world = QueryChain()
    load = world.add_consumer(BOB)
    money.pay_in(world, BOB, 5_000)
    escrow_id = world.apply(LockEscrow(UTILITY.address, load.meter_id, 1_000), by=BOB).make_id("escrow")
    redemption = world.apply(RedeemCredits(UTILITY.address, 300), by=BOB).make_id("redemption")
    bills = [money.issue_bill(world, load, cents) for cents in (50, 70)]
    money.pay(world, bills[0], 50)
    world.apply(DisputeBill(bills[1], "not mine"), by=BOB)
    assert credits.credit_balance(world.view, holder=text(BOB))["balance_cents"] == 3_650
    assert part(credits.credit_balance(world.view, holder=text(UTILITY)), "issuer")["outstanding_cents"] == 5_000
    dues = credits.bill_dues(world.view, consumer=text(BOB), utility=text(UTILITY))
    assert (dues["dues_cents"], dues["overdue_cents"]) == (70, 0)
    assert [row["bill"] for row in rows(dues, "bills")] == [bills[1].hex()]
    shown = credits.bill_get(world.view, bill=bills[1].hex())
    assert (shown["status"], shown["outstanding_cents"]) == ("disputed", 70)
    assert [line["energy_wh"] for line in rows(shown, "lines")] == [70]
    of_bob = credits.bill_list(world.view, consumer=text(BOB))
    assert [row["bill"] for row in rows(of_bob, "bills")] == [one.hex() for one in bills]
    assert rows(credits.bill_list(world.view, utility=text(ALICE)), "bills") == []
    assert credits.escrow_get(world.view, escrow=escrow_id.hex())["held_cents"] == 1_000
    for filters in ({"consumer": text(BOB)}, {"utility": text(UTILITY)}, {}):
        listed = cast("Callable[..., JsonObject]", credits.escrow_list)(world.view, status=EscrowStatus.HELD, **filters)
        assert [row["escrow"] for row in rows(listed, "escrows")] == [escrow_id.hex()]
    redemptions = credits.redemption_list(world.view, holder=text(BOB), status=RedemptionStatus.REQUESTED)
    assert [row["redemption"] for row in rows(redemptions, "redemptions")] == [redemption.hex()]
    assert rows(credits.redemption_list(world.view, status=RedemptionStatus.PAID), "redemptions") == []
    assert audit.chain_audit(world.view)["holds"] is True


def test_a_block_is_found_by_height_and_id_with_its_transactions() -> None:
    world = QueryChain()
    payloads = [IssueCredits(BOB.address, cents, f"payment {cents}") for cents in (10, 20, 30)]
    applied = world.commit_block([world.read(one, by=UTILITY) for one in payloads])
    block = chain.chain_block(world.view, height=1)
    assert block["tx_ids"] == [one.tx_id.hex() for one in applied]
    assert chain.chain_block(world.view, block_id=str(block["block_id"])) == block
    assert chain.chain_block(world.view) == block
    assert part(block, "certificate")["block_id"] == block["block_id"]
    assert chain.chain_block(world.view, height=0)["certificate"] is None
    found = chain.tx_get(world.view, tx_id=applied[1].tx_id.hex())
    assert (found["status"], found["height"], found["index"]) == ("committed", 1, 1)
    assert [one["cents"] for one in rows(found, "events")] == [20]
    assert part(part(found, "transaction"), "payload")["amount_cents"] == 20
    assert chain.find_transaction(world.view, tx_id=UNKNOWN_HASH) is None


def test_validators_and_parameters_of_every_height_are_told() -> None:
    world = QueryChain()
    world.register_site(ALICE)
    for height in (None, 0, 1):
        members = rows(chain.chain_validators(world.view, height=height), "validators")
        assert [one["moniker"] for one in members] == ["validator"]
        parameters = part(chain.chain_parameters(world.view, height=height), "parameters")
        assert parameters["matching_period_s"] == 3_600


def test_a_transactions_proof_leads_to_the_root_of_its_header() -> None:
    world = QueryChain()
    payloads = [IssueCredits(BOB.address, cents, f"payment {cents}") for cents in range(1, 6)]
    for place, applied in enumerate(world.commit_block([world.read(one, by=UTILITY) for one in payloads])):
        proof = chain.proof_transaction(world.view, tx_id=applied.tx_id.hex())
        assert (proof["index"], proof["size"]) == (place, 5)
        siblings = [bytes.fromhex(str(one)) for one in cast("list[Json]", proof["proof"])]
        root = bytes.fromhex(str(part(proof, "header")["transactions_root"]))
        leaf = bytes.fromhex(str(proof["leaf"]))
        check_inclusion(leaf, index=place, size=5, proof=siblings, root=root)
        with pytest.raises(Rejected, match="inclusion_proof_root_differs"):
            check_inclusion(leaf + b"x", index=place, size=5, proof=siblings, root=root)


def test_a_state_proof_shows_a_value_or_its_absence() -> None:
    world = QueryChain()
    behind = load_tree(world.store)
    world.register_site(ALICE)
    for person in (BOB, STRANGER):
        key = PARTICIPANTS.key(person.address)
        answer = chain.proof_state(world.view, key=key.hex())
        for tree in (None, behind):
            assert chain.proof_state(View(world.store, world.table, tree), key=key.hex()) == answer
        shown = part(answer, "proof")
        levels = tuple(bytes.fromhex(str(level)) for level in cast("list[Json]", shown["levels"]))
        proof = StateProof(levels, bytes.fromhex(str(shown["bucket"])))
        value = None if answer["value"] is None else bytes.fromhex(str(answer["value"]))
        assert (value is None) == (person == STRANGER)
        root = Hash(bytes.fromhex(str(part(answer, "header")["state_root"])))
        check_state_proof(root, key=key, value=value, proof=proof)


def find_sum(world: QueryChain, name: str) -> JsonObject:
    (found,) = (one for one in rows(audit.chain_audit(world.view), "sums") if one["name"] == name)
    return found


def trade(world: QueryChain) -> tuple[LotId, bytes]:
    """A plant, a load, a sale and an hourly claim: something for each sum. The lot, and the load's meter."""
    plant, load = world.add_producer(ALICE), world.add_consumer(BOB)
    lot, _ = world.produce(plant, 100, 3_000)
    world.consume(load, 90)
    move(world, lot, 0, 60, by=ALICE, to=BOB)
    claim(world, lot, 0, 40, by=BOB, meter=load.meter_id)
    money.pay_in(world, BOB, 500)
    return lot, load.meter_id


def test_the_audit_holds_and_shows_both_sides() -> None:
    world = QueryChain()
    trade(world)
    answer = audit.chain_audit(world.view)
    assert answer["holds"] is True
    assert {str(one["name"]): (one["left"], one["right"]) for one in rows(answer, "sums")} == {
        "slices_partition_each_lot": (100, 100),
        "minted_is_all_statuses": (100, 100),
        "credit_supply_is_where_credits_are": (500, 500),
        "credit_supply_is_outstanding_of_issuers": (500, 500),
        "billed_is_paid_credited_or_outstanding": (0, 0),
        "hourly_claims_are_within_consumption": (40, 90),
        "discharged_is_within_charged": (0, 0),
        "metered_is_accounted_for": (3_100, 3_100),
        "holders_of_each_source_have_what_it_minted": (100, 100),
    }
    assert find_sum(world, "minted_is_all_statuses")["right_parts"] == {
        "active": 60,
        "reserved": 0,
        "claimed": 40,
        "charged": 0,
        "expired": 0,
        "withdrawn": 0,
    }


def test_an_audit_of_many_meters_holds_no_more_lots_than_those_of_one() -> None:
    world, lots = QueryChain(), 500
    trade(world)
    ((_, mint),) = MINTS.scan(world.state)
    many = encode(to_plain(replace(mint, wh=(1_000,) * lots)))
    meters = [number.to_bytes(16, "big") for number in range(200)]
    world.store.write({MINTS.key(meter, mint.start_ms): many for meter in meters})
    view = world.view
    tracemalloc.start()
    try:
        lots_audited, _ = audit.chain_audit(view)["sums"][:2]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert lots_audited["left"] == lots_audited["right"] == 100 + len(meters) * lots * 1_000
    assert peak < 10 * 2**20  # a hundred thousand lots at once are thirty


def test_the_audit_sees_a_lot_with_a_gap() -> None:
    world = QueryChain()
    lot, _ = trade(world)
    record = SLICES.get(world.state, lot.meter, lot.start_ms, lot.version)
    SLICES.put(world.state, lot.meter, lot.start_ms, lot.version, value=LotSlices(record.slices[1:]))
    world.commit()
    found = find_sum(world, "slices_partition_each_lot")
    assert (found["holds"], found["faults"]) == (False, [format_lot_id(lot)])
    assert audit.chain_audit(world.view)["holds"] is False


def test_the_audit_sees_energy_from_nowhere() -> None:
    world = QueryChain()
    lot, _ = trade(world)
    mint = MINTS.get(world.state, lot.meter, lot.start_ms)
    MINTS.put(world.state, lot.meter, lot.start_ms, value=replace(mint, wh=(100, 7)))
    world.commit()
    assert find_sum(world, "metered_is_accounted_for")["holds"] is False
    assert find_sum(world, "holders_of_each_source_have_what_it_minted")["holds"] is False


def test_the_audit_sees_a_claim_beyond_consumption() -> None:
    world = QueryChain()
    _, load = trade(world)
    CLAIMED.put(world.state, load, DAY_0_MS, value=ClaimedWh((91,)))
    world.commit()
    found = find_sum(world, "hourly_claims_are_within_consumption")
    assert (found["holds"], found["faults_count"]) == (False, 1)


@pytest.mark.parametrize(
    ("reason", "ask"),
    [
        ("participant_not_found", lambda at: participants.participant_get(at, participant=text(STRANGER))),
        ("participant_not_found", lambda at: trace.trace_holder(at, participant=text(STRANGER))),
        ("participant_not_found", lambda at: energy.energy_balance(at, holder=text(STRANGER))),
        ("participant_not_found", lambda at: energy.energy_slices(at, holder=text(STRANGER))),
        ("participant_not_found", lambda at: credits.credit_balance(at, holder=text(STRANGER))),
        ("participant_not_found", lambda at: credits.bill_dues(at, consumer=text(BOB), utility=text(STRANGER))),
        ("site_not_found", lambda at: sites.site_get(at, site=UNKNOWN_ID)),
        ("site_not_found", lambda at: trace.trace_source(at, site=UNKNOWN_ID)),
        ("site_not_found", lambda at: energy.energy_slices(at, holder=text(BOB), site=UNKNOWN_ID)),
        ("meter_not_found", lambda at: sites.meter_get(at, meter=UNKNOWN_ID)),
        ("meter_not_found", lambda at: trace.trace_source(at, meter=UNKNOWN_ID)),
        ("meter_not_found", lambda at: readings.reading_list(at, meter=UNKNOWN_ID)),
        ("lot_not_found", lambda at: energy.lot_get(at, lot=f"{UNKNOWN_ID}:0:1")),
        ("lot_not_found", lambda at: trace_lot.trace_lot(at, lot=f"{UNKNOWN_ID}:0:1")),
        ("claim_not_found", lambda at: energy.claim_get(at, claim=UNKNOWN_ID)),
        ("bill_not_found", lambda at: credits.bill_get(at, bill=UNKNOWN_ID)),
        ("escrow_not_found", lambda at: credits.escrow_get(at, escrow=UNKNOWN_ID)),
        ("block_not_found", lambda at: chain.chain_block(at, height=1)),
        ("block_not_found", lambda at: chain.chain_block(at, block_id=UNKNOWN_HASH)),
        ("transaction_not_found", lambda at: chain.tx_get(at, tx_id=UNKNOWN_HASH)),
        ("transaction_not_found", lambda at: chain.proof_transaction(at, tx_id=UNKNOWN_HASH)),
    ],
)
def test_what_is_not_there_is_not_found_by_name(reason: str, ask: Callable[[View], JsonObject]) -> None:
    with pytest.raises(NotFound) as caught:
        ask(QueryChain().view)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("reason", "ask"),
    [
        ("address_invalid", lambda at: participants.participant_get(at, participant="wp1nobody")),
        ("hex_invalid", lambda at: sites.site_get(at, site="xyz")),
        ("hex_invalid", lambda at: sites.site_get(at, site="AB" * 16)),
        ("bytes_length_out_of_range", lambda at: sites.site_get(at, site="ab")),
        ("bytes_length_out_of_range", lambda at: chain.tx_get(at, tx_id="ab")),
        ("limit_out_of_range", lambda at: participants.participant_list(at, limit=0)),
        ("limit_out_of_range", lambda at: participants.participant_list(at, limit=1_001)),
        ("cursor_invalid", lambda at: participants.participant_list(at, cursor="no")),
        ("cursor_invalid", lambda at: participants.participant_list(at, cursor="00" * 257)),
        ("cursor_invalid", lambda at: energy.energy_slices(at, holder=text(BOB), cursor="00")),
        ("period_invalid", lambda at: trace.trace_holder(at, participant=text(BOB), from_ms=5, until_ms=5)),
        ("period_invalid", lambda at: trace.trace_holder(at, participant=text(BOB), from_ms=-1)),
        ("period_invalid", lambda at: trace.trace_holder(at, participant=text(BOB), until_ms=2**53 + 1)),
        ("parameters_conflict", trace.trace_source),
        ("parameters_conflict", lambda at: trace.trace_source(at, site=UNKNOWN_ID, meter=UNKNOWN_ID)),
        ("parameters_conflict", lambda at: chain.chain_block(at, height=0, block_id=UNKNOWN_HASH)),
        ("number_out_of_range", lambda at: chain.chain_block(at, height=-1)),
        ("lot_id_invalid", lambda at: energy.lot_get(at, lot=UNKNOWN_ID)),
        ("lot_id_invalid", lambda at: energy.lot_get(at, lot=f"{UNKNOWN_ID}:00:1")),
        ("lot_id_invalid", lambda at: energy.lot_get(at, lot=f"{UNKNOWN_ID}:0:0")),
        ("lot_id_invalid", lambda at: energy.lot_get(at, lot=f"{UNKNOWN_ID}:-1:1")),
        ("hex_invalid", lambda at: energy.lot_get(at, lot="zz:0:1")),
        ("state_key_invalid", lambda at: chain.proof_state(at, key="61")),
    ],
)
def test_a_malformed_question_is_refused_by_name(reason: str, ask: Callable[[View], JsonObject]) -> None:
    with pytest.raises(Malformed) as caught:
        ask(QueryChain().view)
    assert caught.value.reason == reason


def test_every_question_is_in_the_catalogue_once() -> None:
    names = [query.__name__ for query in QUERIES]
    assert len(set(names)) == len(names)
    assert {"trace_source", "trace_holder", "trace_lot", "chain_audit", "bill_dues", "proof_state"} <= set(names)


def test_a_balance_with_too_much_past_its_lifetime_is_not_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    world = QueryChain(Parameters(lot_lifetime_s=3_600))
    world.produce(world.add_producer(ALICE), 10, 20)
    assert energy.energy_balance(world.view, holder=text(ALICE))["expired_wh"] == 30
    monkeypatch.setattr(energy, "EXPIRED_DAYS_READ_MAX", 0)
    with pytest.raises(Rejected, match="balance_too_large_to_sum"):
        energy.energy_balance(world.view, holder=text(ALICE))


def test_what_is_too_much_for_one_certificate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    market = make_market()
    monkeypatch.setattr(certificates, "SLICES_PER_TRANSACTION_MAX", 0)
    with pytest.raises(Rejected, match="too_much_to_certify"):
        certificates.certificate_get(market.chain.view, holder=text(BOB))
    monkeypatch.setattr(issuing, "LOTS_MAX", 1)
    with pytest.raises(Rejected, match="too_much_to_certify"):
        certificates.certificate_get(market.chain.view, claim=market.stored.hex())
