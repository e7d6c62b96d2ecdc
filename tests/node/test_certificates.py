"""Certificates of provenance: what they prove, that no change of them is believed, and what the page says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path as FilePath
from typing import cast

import pytest

from contracts_native.claims import CLAIMS
from contracts_native.corrections import WithdrawEnergy
from contracts_native.lots import SliceRef
from contracts_native.meters import RotateMeterKey
from ledger.block import Header
from ledger.errors import Rejected
from ledger.fields import Json, from_json, to_json
from ledger.genesis import GenesisValidator, write_genesis
from ledger.primitives import MeterKey, format_address
from node.certificates.format import (
    CERTIFICATE_BYTES_MAX,
    Certificate,
    CommitPart,
    ValidatorChange,
    read_text,
    write_certificate,
    write_text,
)
from node.certificates.printable import compute_date, format_energy, format_time, make_page
from node.certificates.verify import Verified, verify_certificate
from node.queries.certificates import certificate_get
from node.queries.energy import HeldSliceRow, energy_slices
from node.queries.errors import NotFound
from node.queries.view import JsonObject
from tests.contracts_native.harness import ALICE, BOB, DAY_0_MS, HOUR_MS, MEASURER, UTILITY, make_person
from tests.node.certificate_chain import (
    VALIDATORS,
    CertifiedChain,
    change,
    claim,
    list_arrays,
    list_leaves,
    list_objects,
    make_commit,
    make_document,
    make_market,
    make_set,
    seal,
)
from tests.node.fake_node import FakeNode

SUBJECTS = ("hourly", "volumetric", "corrected", "stored", "charge", "holding")
STRANGERS = tuple(make_person(f"stranger {number}") for number in range(4))


def issue(subject: str) -> JsonObject:
    """The certificate of one of the market's subjects, as it comes over the wire."""
    market = make_market()
    if subject == "holding":
        data = certificate_get(market.chain.view, holder=format_address(BOB.address))
    else:
        data = certificate_get(market.chain.view, claim=getattr(market, subject).hex())
    return cast(JsonObject, json.loads(json.dumps(data)))


def verify(data: Json) -> Verified:
    return verify_certificate(data, make_market().chain.document)


def get_reason(data: Json) -> str:
    """Why a certificate is refused; fails if it is believed."""
    with pytest.raises(Rejected) as caught:
        verify(data)
    assert re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", caught.value.reason), caught.value
    return caught.value.reason


def get_certificate(subject: str) -> Certificate:
    return from_json(Certificate, issue(subject))


# — what is believed —


@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_certificate_is_true_with_the_genesis_file_alone(subject: str) -> None:
    verified = verify(issue(subject))
    assert verified.wh == sum(ref.wh for ref in verified.refs)
    assert verified.validators_count == len(VALIDATORS)


def test_a_claim_names_its_beneficiary_its_amount_and_every_lot() -> None:
    verified = verify(issue("hourly"))
    assert verified.certificate.claim is not None
    assert verified.certificate.claim.record.beneficiary == BOB.address
    assert verified.wh == 550
    assert {one.technology.value: one.wh for one in verified.lots.values()} == {"solar": 500, "wind": 310}


def test_meters_of_both_schemes_sign() -> None:
    assert {len(one.key) for one in get_certificate("hourly").reports} == {32, 33}


def test_a_corrected_lot_comes_with_its_correction_and_the_report_that_was_wrong() -> None:
    certificate = get_certificate("corrected")
    (lot,) = certificate.lots
    assert lot.lot.version == 2
    assert lot.correction is not None
    assert (lot.correction.wh, lot.correction.corrected_by) == (85, MEASURER.address)
    assert MEASURER.address in [one.address for one in certificate.participants]
    (report,) = certificate.reports
    assert report.mint is None
    assert 80 in report.record.values_wh


def test_what_left_a_battery_comes_with_what_went_into_it() -> None:
    certificate = get_certificate("stored")
    verified = verify(issue("stored"))
    assert {one.technology.value for one in verified.lots.values()} == {"storage", "solar"}
    assert [one.claim for one in certificate.charges] == [make_market().charge]


def test_a_holding_is_all_that_the_holder_may_still_use() -> None:
    verified = verify(issue("holding"))
    chain = make_market().chain
    assert verified.wh == sum(
        cast(int, one["end_wh"]) - cast(int, one["first_wh"]) for one in _ask_slices(chain) if one["status"] == "active"
    )


def _ask_slices(chain: CertifiedChain) -> list[HeldSliceRow]:
    return energy_slices(chain.view, holder=format_address(BOB.address), limit=1_000)["slices"]


def test_a_lot_that_nobody_touched_is_held_by_its_shareholder() -> None:
    chain = CertifiedChain()
    lots = chain.produce(chain.add_producer(ALICE), 40, 0, 50)
    data = certificate_get(chain.view, holder=format_address(ALICE.address))
    verified = verify_certificate(data, chain.document)
    assert [part.slices for part in verified.certificate.lots] == [None, None]
    assert [ref.lot for ref in verified.refs] == [lots[0], lots[2]]


def test_a_holding_is_of_a_period() -> None:
    chain = make_market().chain
    data = certificate_get(
        chain.view, holder=format_address(BOB.address), from_ms=DAY_0_MS + HOUR_MS, until_ms=DAY_0_MS + 2 * HOUR_MS
    )
    verified = verify(data)
    assert {DAY_0_MS + HOUR_MS <= ref.lot.start_ms < DAY_0_MS + 2 * HOUR_MS for ref in verified.refs} == {True}


def test_a_report_is_still_proved_after_its_meter_got_another_key() -> None:
    chain = CertifiedChain()
    meter = chain.add_producer(BOB)
    lots = chain.produce(meter, 40, 50)
    claimed = claim(chain, "early", SliceRef(lots[0], 0, 40))
    new_key = MeterKey(make_person("new meter key").public_key)
    chain.apply(RotateMeterKey(meter.meter_id, new_key, DAY_0_MS + HOUR_MS), by=UTILITY, cosigners=[BOB])
    certificate = verify_certificate(certificate_get(chain.view, claim=claimed.hex()), chain.document).certificate
    assert [one.record.key for one in certificate.meters] == [new_key]
    assert [one.key for one in certificate.reports] == [meter.key]


def test_trust_passes_from_the_genesis_validators_to_those_they_announce() -> None:
    assert verify(write_certificate(change_validators())).validators_count == len(STRANGERS)


def change_validators() -> Certificate:
    """A certificate whose header other validators decided, with the link that makes them known."""
    document = make_market().chain.document
    certificate = get_certificate("hourly")
    old, new = make_set(VALIDATORS).compute_hash(), make_set(STRANGERS).compute_hash()
    announcing = replace(certificate.header, height=3, validators_hash=old, next_validators_hash=new)
    header = replace(certificate.header, validators_hash=new, next_validators_hash=new)
    members = tuple(GenesisValidator(one.public_key, one.name) for one in STRANGERS)
    link = ValidatorChange(announcing, make_commit(announcing, by=VALIDATORS, document=document), members)
    commit = make_commit(header, by=STRANGERS, document=document)
    changed = replace(certificate, header=header, commit=commit, validator_changes=(link,))
    return from_json(Certificate, reseal(changed))


def reseal(certificate: Certificate) -> JsonObject:
    return seal(write_certificate(certificate))


# — what is refused —


@pytest.mark.parametrize("subject", ["hourly", "corrected"])
def test_no_field_can_be_changed(subject: str) -> None:
    data = issue(subject)
    for at, value in list_leaves(data):
        for other in list_others(value):
            assert get_reason(change(data, at, other)), at


@pytest.mark.parametrize("subject", SUBJECTS)
def test_no_field_can_be_changed_by_a_forger_who_computes_the_id_again(subject: str) -> None:
    data = issue(subject)
    for at, value in list_leaves(data):
        if at != ("id",):
            for other in list_others(value):
                assert get_reason(seal(change(data, at, other))), at


def list_others(value: Json) -> list[Json]:
    """Values that differ from this one as little as a forger could want."""
    if value is None:
        return ["00" * 16, 1]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1 if value else None, str(value)]
    if isinstance(value, str):
        other = "1" if value[-1:] == "0" else "0"
        return [value[:-1] + other, value.upper() if value != value.upper() else value + "x", None]
    return [None]


@pytest.mark.parametrize("subject", ["hourly", "stored", "holding"])
def test_no_list_can_be_shortened_repeated_or_reordered(subject: str) -> None:
    data = issue(subject)
    for at, items in list_arrays(data):
        others: list[list[Json]] = [items[:-1], items[1:], [*items, *items[-1:]], items[::-1], [*items, None]]
        for other in others:
            if other != items:
                changed = change(data, at, other)
                assert get_reason(changed), at
                if at != ("commit", "signatures"):  # three signatures of four are a quorum
                    assert get_reason(seal(changed)), at


@pytest.mark.parametrize("subject", ["hourly", "stored", "holding"])
def test_no_object_can_have_a_field_more_or_less(subject: str) -> None:
    data = issue(subject)
    for at, fields in list_objects(data):
        assert get_reason(seal(change(data, at, {**fields, "remark": 1}))) == "field_unknown"
        for name in fields:
            fewer = {other: value for other, value in fields.items() if other != name}
            changed = change(data, at, fewer)
            assert get_reason(changed if at == () and name == "id" else seal(changed)) in (
                "field_missing",
                "certificate_not_in_full_form",
                "certificate_not_recognised",
                "certificate_version_unknown",
            ) or (at, name) == ((), "id")


def edit_commit(data: JsonObject, edit: Callable[[list[Json]], list[Json]]) -> JsonObject:
    signatures = cast("list[Json]", cast(JsonObject, data["commit"])["signatures"])
    return seal(change(data, ("commit", "signatures"), edit(signatures)))


def test_three_of_four_signatures_are_enough_and_two_are_not() -> None:
    data = issue("hourly")
    assert verify(edit_commit(data, lambda all_: all_[1:])).wh == 550
    assert get_reason(edit_commit(data, lambda all_: all_[2:])) == "certificate_signatures_too_few"


def test_a_signature_counts_once() -> None:
    data = issue("hourly")
    repeated = edit_commit(data, lambda all_: [all_[0], all_[0], all_[1]])
    assert get_reason(repeated) == "certificate_signer_repeated"


def test_a_stranger_signs_in_vain() -> None:
    certificate, document = get_certificate("hourly"), make_market().chain.document
    commit = make_commit(certificate.header, by=(*VALIDATORS[:3], STRANGERS[0]), document=document)
    assert get_reason(reseal(replace(certificate, commit=commit))) == "certificate_signer_unknown"


def test_forged_validators_are_not_those_of_genesis() -> None:
    certificate, document = get_certificate("hourly"), make_market().chain.document
    forged = make_set(STRANGERS).compute_hash()
    header = replace(certificate.header, validators_hash=forged, next_validators_hash=forged)
    commit = make_commit(header, by=STRANGERS, document=document)
    reason = get_reason(reseal(replace(certificate, header=header, commit=commit)))
    assert reason == "validators_not_those_of_header"


def edit_link(certificate: Certificate, **parts: object) -> JsonObject:
    link = certificate.validator_changes[0]
    fields = {"header": link.header, "commit": link.commit, "next_validators": link.next_validators, **parts}
    changed = ValidatorChange(
        cast(Header, fields["header"]),
        cast(CommitPart, fields["commit"]),
        cast("tuple[GenesisValidator, ...]", fields["next_validators"]),
    )
    return reseal(replace(certificate, validator_changes=(changed,)))


def test_validators_cannot_announce_themselves() -> None:
    certificate, document = change_validators(), make_market().chain.document
    link = certificate.validator_changes[0]
    own = make_commit(link.header, by=STRANGERS, document=document)
    assert get_reason(edit_link(certificate, commit=own)) == "certificate_signer_unknown"
    two = make_commit(link.header, by=VALIDATORS[:2], document=document)
    assert get_reason(edit_link(certificate, commit=two)) == "certificate_signatures_too_few"


def test_a_link_must_announce_the_very_validators_in_order_of_height_and_change_something() -> None:
    certificate, document = change_validators(), make_market().chain.document
    link = certificate.validator_changes[0]
    fewer = link.next_validators[:3]
    assert get_reason(edit_link(certificate, next_validators=fewer)) == "validators_not_announced"
    twice = (*fewer, fewer[0])
    assert get_reason(edit_link(certificate, next_validators=twice)) == "validator_named_twice"
    late = replace(link.header, height=certificate.header.height)
    late_commit = make_commit(late, by=VALIDATORS, document=document)
    assert get_reason(edit_link(certificate, header=late, commit=late_commit)) == "validator_changes_not_in_order"
    same = replace(link.header, next_validators_hash=link.header.validators_hash)
    same_commit = make_commit(same, by=VALIDATORS, document=document)
    assert get_reason(edit_link(certificate, header=same, commit=same_commit)) == "certificate_has_more_than_it_needs"
    without = reseal(replace(certificate, validator_changes=()))
    assert get_reason(without) == "validators_not_those_of_header"


def test_another_genesis_refuses_it() -> None:
    other = replace(make_document(), time_ms=make_document().time_ms + 1)
    with pytest.raises(Rejected, match="certificate_of_another_chain"):
        verify_certificate(issue("hourly"), other)


def test_a_proof_from_another_chain_is_refused() -> None:
    other = CertifiedChain(replace(make_document(), time_ms=make_document().time_ms + 1))
    lots = other.produce(other.add_producer(BOB), 40, 50)
    foreign = certificate_get(other.view, claim=claim(other, "there", SliceRef(lots[0], 0, 40)).hex())
    assert verify_certificate(foreign, other.document).wh == 40
    assert get_reason(foreign) == "certificate_of_another_chain"
    ours = issue("hourly")
    assert get_reason(seal({**foreign, "chain": ours["chain"]})) == "certificate_signature_invalid"
    assert get_reason(seal({**foreign, **{name: ours[name] for name in ("chain", "header", "commit")}})) == (
        "state_proof_incomplete"
    )


def test_parts_of_two_true_certificates_make_no_third() -> None:
    one, other = issue("hourly"), issue("volumetric")
    for name in one:
        if one[name] != other[name] and name != "id":
            assert get_reason(seal({**one, name: other[name]})), name


def test_a_subject_is_needed_and_only_one() -> None:
    claim_, holding = issue("hourly"), issue("holding")
    assert get_reason(seal({**claim_, "claim": None}))
    assert get_reason(seal({**claim_, "holding": holding["holding"]}))
    assert get_reason(seal({**claim_, "parameters": holding["parameters"]}))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "certificate_not_json"),
        (b"\xff", "certificate_not_json"),
        (b"[" * 100_000, "certificate_not_json"),
        (b'{"format": 1, "format": 2}', "field_named_twice"),
        (b'{"version": 1.0}', "field_has_wrong_type"),
        (b'{"version": NaN}', "field_has_wrong_type"),
        (b" " * (CERTIFICATE_BYTES_MAX + 1), "certificate_too_large"),
    ],
)
def test_what_is_no_certificate_is_told_apart(raw: bytes, reason: str) -> None:
    with pytest.raises(Rejected) as caught:
        read_text(raw)
    assert caught.value.reason == reason


@pytest.mark.parametrize("data", [None, [], 7, "wattprint-certificate", {}, {"format": "wattprint-certificate"}])
def test_other_json_is_no_certificate(data: Json) -> None:
    assert get_reason(data) in ("certificate_not_recognised", "certificate_version_unknown")


def test_a_version_that_nests_as_deep_as_json_goes_is_refused_by_name() -> None:
    """To show it in the refusal would recur as deep as reading it did, from wherever in the stack."""
    deep: Json = []
    for _ in range(100_000):
        deep = [deep]
    assert get_reason({"format": "wattprint-certificate", "version": deep}) == "certificate_version_unknown"


# — what a node answers —


def test_a_claim_that_lost_its_energy_gets_no_certificate_and_its_old_one_says_as_of_when() -> None:
    chain = CertifiedChain()
    lots = chain.produce(chain.add_producer(BOB), 40, 50)
    claimed = claim(chain, "early", SliceRef(lots[0], 0, 40))
    before = certificate_get(chain.view, claim=claimed.hex())
    chain.apply(WithdrawEnergy((lots[0],), "never produced"), by=MEASURER)
    with pytest.raises(Rejected, match="claim_not_in_force"):
        certificate_get(chain.view, claim=claimed.hex())
    verified = verify_certificate(before, chain.document)
    assert verified.certificate.header.height == chain.height - 1
    state = verified.certificate.claim
    assert state is not None
    assert state.record != CLAIMS.get(chain.state, claimed)


def test_a_question_that_makes_no_sense_is_refused() -> None:
    chain = make_market().chain
    with pytest.raises(Rejected, match="parameters_conflict"):
        certificate_get(chain.view)
    with pytest.raises(Rejected, match="parameters_conflict"):
        certificate_get(chain.view, claim="00" * 16, holder=format_address(BOB.address))
    with pytest.raises(Rejected, match="parameters_conflict"):
        certificate_get(chain.view, claim="00" * 16, from_ms=1)
    with pytest.raises(NotFound, match="claim_not_found"):
        certificate_get(chain.view, claim="00" * 16)
    with pytest.raises(Rejected, match="nothing_to_certify"):
        certificate_get(chain.view, holder=format_address(UTILITY.address))


# — the command line —


@pytest.fixture
def genesis(tmp_path: FilePath) -> FilePath:
    path = tmp_path / "genesis.json"
    path.write_text(json.dumps(write_genesis(make_market().chain.document)))
    return path


def test_issue_writes_a_file_that_verify_believes_and_print_prints(tmp_path: FilePath, genesis: FilePath) -> None:
    data = issue("hourly")
    node = FakeNode(answers={"certificate_get": data})
    path, page = tmp_path / "c.json", tmp_path / "c.html"
    claim_id = make_market().hourly.hex()
    said = node.run_json("certificate", "issue", claim_id, "-o", path, "--genesis", genesis)
    assert node.asked == [("certificate_get", {"claim": claim_id})]
    assert (said["id"], said["is_verified"]) == (data["id"], True)
    assert path.read_bytes() == write_text(data)
    away = FakeNode(is_there=False)
    known = away.run_json("certificate", "verify", path, "--genesis", genesis)
    assert (known["verified"], known["wh"], known["is_hourly"], known["signatures"]) == (True, 550, True, 4)
    assert "550 Wh claimed hourly for bob" in away.run("certificate", "verify", path, "--genesis", genesis).stdout
    assert away.run("certificate", "print", path, "--genesis", genesis, "-o", page).exit_code == 0
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_verify_refuses_with_status_1_and_the_reason(tmp_path: FilePath, genesis: FilePath) -> None:
    path = tmp_path / "c.json"
    data = issue("hourly")
    path.write_bytes(write_text(change(data, ("claim", "record", "wh"), 551)))
    result = FakeNode(is_there=False).run("certificate", "verify", path, "--genesis", genesis)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "state_proof_value_differs" in result.stderr


# — the page —


@pytest.mark.parametrize("subject", SUBJECTS)
def test_the_page_says_who_how_much_from_where_and_needs_nothing_from_elsewhere(subject: str) -> None:
    verified = verify(issue(subject))
    page = make_page(verified)
    assert format_energy(verified.wh) in page
    assert "<strong>bob</strong>" in page
    assert verified.certificate.id.hex()[:16] in page
    assert "4 of 4 validators" in page
    for meter in verified.certificate.meters:
        if meter.meter in {ref.lot.meter for ref in verified.refs}:
            assert meter.record.serial in page
    assert not re.search(r"(src|href)=|url\(|@import|<script", page)
    assert page.count("<svg") == 2


def test_what_people_typed_is_text_on_the_page() -> None:
    verified = verify(issue("hourly"))
    evil = "<script>alert(1)</script>"
    people = tuple(replace(one, record=replace(one.record, label=evil)) for one in verified.certificate.participants)
    page = make_page(replace(verified, certificate=replace(verified.certificate, participants=people)))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_amounts_and_times_are_for_people() -> None:
    assert [format_energy(wh) for wh in (7, 999, 1_000, 1_250, 12_345_678)] == [
        *("7 Wh", "999 Wh", "1 kWh", "1.25 kWh", "12\u202f345.678 kWh")
    ]
    assert format_time(DAY_0_MS + 15 * 60_000) == "6 Jun 2024 00:15"


@pytest.mark.parametrize(
    ("days", "date"), [(0, (1970, 1, 1)), (59, (1970, 3, 1)), (11_016, (2000, 2, 29)), (19_782, (2024, 2, 29))]
)
def test_a_date_follows_from_days(days: int, date: tuple[int, int, int]) -> None:
    assert compute_date(days) == date


def test_reading_what_was_written_gives_the_same() -> None:
    data = issue("hourly")
    assert read_text(write_text(data)) == data
    assert to_json(get_certificate("hourly")) == data
