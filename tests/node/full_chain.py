"""A chain on which everything has happened that an answer can tell of.

Owns the story: the town of the contracts' tests, then what it leaves out (papers, money, the council of validators),
then enough time for most lots to be past their lifetime.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from contracts_native.amendments import AmendSite
from contracts_native.bills import CreditBill
from contracts_native.claims import CLAIMS, ClaimEnergy, ClaimStatus
from contracts_native.corrections import WithdrawEnergy
from contracts_native.credits import ConfirmPayout, FailPayout, IssueCredits, RedeemCredits
from contracts_native.escrow import ApproveReturn, LockEscrow, RequestReturn
from contracts_native.evidence import CHAIN_NAME, NONE, ReportEvidence, Statement, StatementKind
from contracts_native.governance import ParameterChange, Propose, ShowReadiness, Vote
from contracts_native.kyc import DecideKyc, KycDecision
from contracts_native.lots import SliceRef
from contracts_native.meters import Channel, get_meter
from contracts_native.offers import OpenOffer
from contracts_native.participants import UnfreezeParticipant, get_participant
from contracts_native.readings import Flag
from ledger.authorities import SignedChain
from ledger.block import compute_block_id
from ledger.primitives import Signature, sha256
from node.chain_store import get_header
from tests.contracts_native import money
from tests.contracts_native.council import make_change
from tests.contracts_native.harness import (
    ALICE,
    AUDITOR,
    BOB,
    CHAIN_ID,
    DAY_0_MS,
    DAY_MS,
    FULFILMENT,
    HOUR_MS,
    MEASURER,
    UTILITY,
    Person,
    make_person,
)
from tests.contracts_native.papers import DAVE, add_dave, add_papers, add_version, cite
from tests.contracts_native.test_documents import make_design
from tests.contracts_native.town import PARAMETERS, PEOPLE, Town
from tests.node.certificate_chain import VALIDATORS, CertifiedChain, make_document
from tests.node.query_answers import move

SEED = 3
STEPS = 150
LATE_MS = DAY_0_MS + 25 * DAY_MS  # of the lots that outlive the others


@dataclass(frozen=True)
class FullChain:
    """The chain, and the town on it."""

    chain: CertifiedChain
    town: Town


@cache
def make_full_chain() -> FullChain:
    """The same chain each time; nobody changes it."""
    parameters = replace(PARAMETERS, zone_pairs=(("DE-LU", "FR"),))
    chain = CertifiedChain(replace(make_document(), parameters=parameters))
    _change_validators(chain)
    town = Town(SEED, chain)
    town.run(STEPS, check=lambda: None)
    for person in PEOPLE:
        if get_participant(chain.state, person.address).is_frozen:
            chain.apply(UnfreezeParticipant(person.address, "cleared"), by=AUDITOR)
    _write_papers(chain, get_meter(chain.state, town.plant.meter_id).site)
    _pay(chain, town)
    _govern(chain)
    _trade_late(chain)
    return FullChain(chain, town)


def list_claims_in_force(chain: CertifiedChain) -> list[bytes]:
    """Claims that a certificate can be made of."""
    return [key[3:] for key, one in CLAIMS.scan(chain.state) if one.status is ClaimStatus.CLAIMED]


def _change_validators(chain: CertifiedChain) -> None:
    for _ in range(2):
        chain.commit_block([])
    proposal = chain.apply(make_change(8, add=make_person("newcomer")), by=VALIDATORS[0]).make_id("proposal")
    readiness = ShowReadiness(2, compute_block_id(get_header(chain.store, 2)))
    chain.apply(readiness, by=make_person("newcomer"))
    for voter in VALIDATORS[1:3]:
        chain.apply(Vote(proposal, approves=True), by=voter)
    while chain.height < 9:
        chain.commit_block([])


def _write_papers(chain: CertifiedChain, site: bytes) -> None:
    add_dave(chain)
    add_papers(chain, DAVE)
    add_version(chain, 2, DAVE, UTILITY)
    chain.apply(DecideKyc(DAVE.address, KycDecision.APPROVED, cite(2)), by=UTILITY)
    chain.apply(make_design(site, UTILITY), by=ALICE)
    _amend(chain, site)


def _amend(chain: CertifiedChain, site: bytes) -> None:
    amendment = AmendSite(site, chain.time_ms + DAY_MS, label="the old mill", design_document=b"plan")
    chain.apply(amendment, by=UTILITY, cosigners=[ALICE])


def _pay(chain: CertifiedChain, town: Town) -> None:
    money.pay_in(chain, BOB, 5_000)
    escrows = []
    for load in (town.house, chain.add_consumer(BOB)):
        lock = LockEscrow(UTILITY.address, load.meter_id, 300)
        escrows.append(chain.apply(lock, by=BOB).make_id("escrow"))
    chain.apply(RequestReturn(escrows[0]), by=BOB)
    chain.apply(ApproveReturn(escrows[0]), by=UTILITY)
    bills = [money.issue_bill(chain, load, 40) for _ in range(3)]
    money.pay(chain, bills[0], 15)
    money.dispute(chain, bills[1])
    chain.apply(CreditBill(bills[2], 40, "never delivered"), by=UTILITY)
    redemptions = [chain.apply(RedeemCredits(UTILITY.address, 50), by=BOB).make_id("redemption") for _ in range(3)]
    chain.apply(ConfirmPayout(redemptions[0], "SEPA 1"), by=FULFILMENT)
    chain.apply(FailPayout(redemptions[1], "account closed"), by=FULFILMENT)


def _govern(chain: CertifiedChain) -> None:
    height = chain.height
    proposals = [
        make_change(height + 200, add=make_person("another newcomer")),
        make_change(height + 201, remove=VALIDATORS[3]),
        make_change(height + 202, parameters={"reading_skew_s": 7}),
        Propose(None, None, None, (ParameterChange("zone_pairs", None, (("DE-LU", "FR"),)),), None, height + 203),
    ]
    ids = [chain.apply(one, by=VALIDATORS[0]).make_id("proposal") for one in proposals]
    chain.apply(Vote(ids[0], approves=False), by=VALIDATORS[1])
    chain.apply(Vote(ids[1], approves=True), by=VALIDATORS[1])
    signed_chain = SignedChain(CHAIN_ID, CHAIN_NAME.get(chain.state).genesis_hash)
    for kind in (StatementKind.PREVOTE, StatementKind.PRECOMMIT):
        said = []
        for value in (b"a", b"b"):
            plain = Statement(kind, 2, 4, sha256(value), NONE, 0, Signature(bytes(64)))
            said.append(replace(plain, signature=VALIDATORS[2].sign(plain.compute_bytes(signed_chain))))
        chain.apply(ReportEvidence(VALIDATORS[2].public_key, *said), by=VALIDATORS[0])


def _use(
    chain: CertifiedChain, use: SliceRef, *, by: Person, meter: bytes | None = None, replaces: bytes | None = None
) -> bytes:
    """A claim of a late lot for its holder; its id."""
    end_ms, statement = LATE_MS + DAY_MS, f"late {chain.height}"
    payload = ClaimEnergy((use,), by.address, "heat", LATE_MS, end_ms, statement, meter, replaces)
    return chain.apply(payload, by=by).make_id("claim")


def _trade_late(chain: CertifiedChain) -> None:
    """Lots of a later day, of which some is sold, used and offered; the others are past their lifetime by the end."""
    chain.time_ms = max(chain.time_ms, LATE_MS + DAY_MS)
    plant, load = chain.add_producer(ALICE), chain.add_consumer(BOB)
    chain.add_producer(ALICE)  # reports nothing
    lots = chain.produce(plant, 700, 800, 900, 500, 9_000, 600, start_ms=LATE_MS)
    chain.consume(load, 400, 400, start_ms=LATE_MS)
    chain.submit(plant.report(Channel.PRODUCTION, [40], flag=Flag.ESTIMATED))
    move(chain, lots[0], 0, 300, by=ALICE, to=BOB)
    move(chain, lots[0], 300, 400, by=ALICE, to=DAVE)
    move(chain, lots[3], 0, 90, by=ALICE, to=BOB)
    _use(chain, SliceRef(lots[0], 0, 200), by=BOB, meter=load.meter_id)
    _use(chain, SliceRef(lots[0], 300, 350), by=DAVE)
    impaired = _use(chain, SliceRef(lots[3], 0, 90), by=BOB)
    chain.apply(WithdrawEnergy((lots[3],), "meter was wired backwards"), by=MEASURER)
    _use(chain, SliceRef(lots[0], 200, 290), by=BOB, replaces=impaired)
    _amend(chain, get_meter(chain.state, plant.meter_id).site)
    chain.apply(OpenOffer((SliceRef(lots[1], 0, 100),), chain.time_ms + 30 * DAY_MS, total_cents=90), by=ALICE)
    chain.apply(OpenOffer((SliceRef(lots[2], 0, 100),), chain.time_ms + HOUR_MS, 5_000), by=ALICE)
    chain.time_ms = max(chain.time_ms, DAY_0_MS + 45 * DAY_MS)
    payments = [chain.read(IssueCredits(ALICE.address, 1, f"last {number}"), by=UTILITY) for number in range(3)]
    chain.commit_block(payments)
