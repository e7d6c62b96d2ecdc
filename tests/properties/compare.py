"""That the ledger's state says what the model says: every object, every watt-hour and every cent."""

from __future__ import annotations

from collections import Counter
from itertools import chain

from contracts_native.batteries import STORED, list_sources
from contracts_native.bills import BILLS, compute_dues_cents
from contracts_native.claims import CLAIMS, IMPAIRMENTS, get_lost_wh
from contracts_native.credits import BALANCES, ISSUERS, REDEMPTIONS, compute_credit_sums
from contracts_native.documents import DOCUMENTS, ENCRYPTION_KEYS, GRANTS, DocumentStatus
from contracts_native.escrow import ESCROWS
from contracts_native.evidence import OFFENCES
from contracts_native.governance import PROPOSALS
from contracts_native.lots import get_slices, is_withdrawn
from contracts_native.matching import CLAIMED
from contracts_native.meters import METERS, Channel
from contracts_native.offers import OFFERS
from contracts_native.participants import PARTICIPANTS
from contracts_native.readings import REPORTS, apply_revisions, find_report_at, list_facts
from contracts_native.sites import SITES
from ledger.parameters import get_parameters
from ledger.primitives import Address
from ledger.state import State
from ledger.validators import VALIDATORS, get_protocol_version
from tests.contracts_native.harness import list_lots
from tests.properties.model_council import Model
from tests.properties.model_energy import Claim

Key = tuple[bytes, str, int]


def check_same(state: State, model: Model) -> None:
    """Everything that can be read of the state is as the model has it."""
    _check_people(state, model)
    _check_credits(state, model)
    _check_places(state, model)
    _check_readings(state, model)
    _check_lots(state, model)
    _check_claims(state, model)
    _check_trade(state, model)
    _check_papers(state, model)
    _check_council(state, model)


def _check_people(state: State, model: Model) -> None:
    found = {
        key[3:]: (one.public_key, one.roles, one.is_frozen, one.kyc.value, one.registrar)
        for key, one in PARTICIPANTS.scan(state)
    }
    assert found == {
        address: (one.key, one.roles, one.is_frozen, one.kyc, one.registrar) for address, one in model.members.items()
    }


def _check_credits(state: State, model: Model) -> None:
    assert {key[3:]: one.cents for key, one in BALANCES.scan(state)} == dict(+model.balances)
    assert {key[3:]: one.outstanding_cents for key, one in ISSUERS.scan(state)} == {
        issuer: model.outstanding[issuer] for issuer in model.limits
    }
    assert {key[3:]: (one.status.value, one.cents) for key, one in REDEMPTIONS.scan(state)} == {
        one.id: (one.status, one.cents) for one in model.redemptions
    }
    sums = compute_credit_sums(state)
    assert (sums.issued_cents, sums.paid_out_cents) == (model.issued_cents, model.paid_out_cents)
    on_their_way = sum(one.cents for one in model.redemptions if one.status == "requested")
    held_cents = sum(one.held_cents for one in model.escrows)
    everywhere = model.balances.total() + held_cents + on_their_way
    assert model.issued_cents - model.paid_out_cents == everywhere, "the model loses no cent either"


def _check_places(state: State, model: Model) -> None:
    sites = {key[3:]: one for key, one in SITES.scan(state)}
    assert set(sites) == {one.id for one in model.sites}
    for site in model.sites:
        stored = sites[site.id]
        looks = site.now
        assert (stored.zone, stored.capacity_w, stored.label) == (looks.zone, looks.capacity_w, looks.label)
        assert (stored.design_document, stored.efficiency_per_mille) == (looks.design, looks.efficiency)
        assert (stored.shares, stored.since_ms) == (site.shares, site.looks[-1][0])
    assert {key[3:]: (one.status.value, one.status_since_ms, one.key) for key, one in METERS.scan(state)} == {
        one.id: (one.status, one.since_ms, one.keys[-1][1]) for one in model.meters
    }


def _check_readings(state: State, model: Model) -> None:
    found: dict[Key, tuple[int, str, int, bool]] = {}
    for meter in model.meters:
        for channel in Channel:
            for _, stored in REPORTS.scan(state, meter.id, channel):
                record = apply_revisions(state, meter.id, channel, stored)
                for index, fact in enumerate(list_facts(state, meter.id, channel, record)):
                    is_quarantined = index in record.quarantined
                    key = meter.id, channel.value, fact.start_ms
                    found[key] = fact.wh, fact.flag.value, fact.version, is_quarantined
    assert found == {key: (one.wh, one.flag, one.version, one.is_quarantined) for key, one in model.intervals.items()}


def _check_lots(state: State, model: Model) -> None:
    lots = {lot.lot: lot for lot in list_lots(state)}
    assert set(lots) == set(model.lots)
    for lot_id, lot in model.lots.items():
        slices = get_slices(state, lot_id)
        units = chain.from_iterable([(one.holder, one.status.value, one.reference)] * one.wh for one in slices)
        assert list(units) == [(unit.holder, unit.status, b"" if unit.by is None else unit.by.id) for unit in lot.units]
        assert is_withdrawn(state, lot_id) == lot.is_withdrawn
        assert (lots[lot_id].wh, lots[lot_id].zone, lots[lot_id].end_ms) == (len(lot.units), lot.zone, lot.end_ms)
        assert (lots[lot_id].shares, lots[lot_id].predecessor) == (lot.shares, lot.predecessor)
        sources = [(one.charge, one.end_ms, one.wh) for one in list_sources(state, lot_id)]
        assert sources == [(stored.charge.id, stored.end_ms, wh) for stored, wh in lot.sources]


def _check_claims(state: State, model: Model) -> None:
    found = {key[3:]: one for key, one in CLAIMS.scan(state)}
    assert set(found) == {one.id for one in model.claims}
    for claim in model.claims:
        stored = found[claim.id]
        assert (stored.status.value, stored.claimant, stored.beneficiary) == (
            claim.status,
            claim.claimant,
            claim.beneficiary,
        )
        assert get_lost_wh(state, claim.id, stored) == tuple(part.lost_wh for part in claim.parts)
        impairment = IMPAIRMENTS.find(state, claim.id)
        assert (0 if impairment is None else impairment.replaced_wh) == claim.replaced_wh
    taken: Counter[tuple[bytes, int]] = Counter()
    for key, claimed in CLAIMED.scan(state):
        meter, start_ms = key[3:19], int.from_bytes(key[19:], "big")
        record = find_report_at(state, meter, Channel.CONSUMPTION, start_ms)
        assert record is not None
        for index, wh in enumerate(claimed.wh):
            taken[meter, start_ms + index * record.interval_s * 1_000] += wh
    assert +taken == +model.taken
    assert taken.total() == sum(_count_matched(claim) for claim in model.claims)


def _count_matched(claim: Claim) -> int:
    return sum(len(part.against) for part in claim.parts) if claim.meter is not None else 0


def _check_trade(state: State, model: Model) -> None:
    assert {key[3:]: (one.status.value, one.left_wh, one.sold_wh) for key, one in OFFERS.scan(state)} == {
        one.id: (one.status, len(one.units), one.sold_wh) for one in model.offers
    }
    for key, offer in OFFERS.scan(state):
        ours = next(one for one in model.offers if one.id == key[3:])
        listed = [(ref.lot, place) for ref in offer.slices for place in range(ref.first_wh, ref.end_wh)]
        assert listed == [(lot.id, place) for lot, place in ours.units]
    assert {
        (key[3:19], int.from_bytes(key[19:27], "big"), key[27:]): (one.lost_wh, one.given_back_wh, one.left_wh)
        for key, one in STORED.scan(state)
    } == {
        (meter, one.end_ms, one.charge.id): (one.lost_wh, one.given_back_wh, one.left_wh)
        for meter, stored in model.stored.items()
        for one in stored
    }
    assert {
        key[3:]: (one.status.value, one.total_cents, one.paid_cents, one.credited_cents)
        for key, one in BILLS.scan(state)
    } == {one.id: (one.status, one.total_cents, one.paid_cents, one.credited_cents) for one in model.bills}
    for bill in model.bills:
        owed = sum(one.left_cents for one in model.list_open(bill.consumer, bill.utility))
        assert compute_dues_cents(state, Address(bill.consumer), Address(bill.utility)) == owed
    assert {key[3:]: (one.status.value, one.held_cents) for key, one in ESCROWS.scan(state)} == {
        one.id: (one.status, one.held_cents) for one in model.escrows
    }


def _check_papers(state: State, model: Model) -> None:
    assert {key[3:]: one.public_key for key, one in ENCRYPTION_KEYS.scan(state)} == model.encryption_keys
    assert {key[3:]: (one.status is DocumentStatus.RETIRED, one.version) for key, one in DOCUMENTS.scan(state)} == {
        one.id: (one.is_retired, len(one.versions)) for one in model.documents
    }
    grants = {
        (key[3:19], int.from_bytes(key[19:27], "big"), key[27:]): one.reader_key for key, one in GRANTS.scan(state)
    }
    assert grants == {
        (document.id, version, reader): key
        for document in model.documents
        for (version, reader), key in document.grants.items()
    }


def _check_council(state: State, model: Model) -> None:
    assert [one.public_key for one in VALIDATORS.get(state).members] == model.validators
    assert get_protocol_version(state) == model.version
    found = {key[3:]: one for key, one in PROPOSALS.scan(state)}
    assert {
        key: (one.status.value, set(one.approvals), set(one.refusals), one.effective_height)
        for key, one in found.items()
    } == {one.id: (one.status, one.approvals, one.refusals, one.height) for one in model.proposals}
    offences = {(key[3:35], int.from_bytes(key[35:43], "big"), key[43:-1].decode()) for key, _ in OFFENCES.scan(state)}
    assert offences == model.offences
    now = get_parameters(state)
    durations_s = (now.lot_lifetime_s, now.matching_period_s, now.escrow_silence_s, now.dispute_deadline_s)
    assert [one * 1_000 for one in (*durations_s, now.reading_skew_s)] == [
        model.lifetime_ms,
        model.period_ms,
        model.silence_ms,
        model.dispute_ms,
        model.skew_ms,
    ]
    assert (frozenset(now.zone_pairs), now.reading_margin_percent) == (model.zone_pairs, model.margin_percent)
