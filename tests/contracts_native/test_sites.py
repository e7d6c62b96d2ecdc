"""Sites are registered by their utility with their owner's signature."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contracts_native.sites import RegisterSite, SiteRegistered, Technology, get_site
from ledger.errors import Malformed, RuleViolated
from tests.contracts_native.harness import ADMIN, ALICE, BOB, DAY_0_MS, STRANGER, UTILITY, World

SOLAR_ROOF = RegisterSite(ALICE.address, Technology.SOLAR, "DE-LU", 10_000, "roof", DAY_0_MS, b"document")


def test_site_is_registered_with_its_owner_as_only_shareholder() -> None:
    world = World()
    applied = world.apply(SOLAR_ROOF, by=UTILITY, cosigners=[ALICE])
    site_id = applied.make_id("site")
    site = get_site(world.state, site_id)
    assert (site.owner, site.utility) == (ALICE.address, UTILITY.address)
    assert site.shares == ((ALICE.address, 1),)
    assert site.design_document == b"document"
    assert applied.one(SiteRegistered).site == site_id


def test_site_needs_its_owners_signature() -> None:
    world = World()
    world.refuses(SOLAR_ROOF, "owner_countersignature_missing", by=UTILITY)
    world.refuses(SOLAR_ROOF, "owner_countersignature_missing", by=UTILITY, cosigners=[BOB])
    of_stranger = replace(SOLAR_ROOF, owner=STRANGER.address)
    world.refuses(of_stranger, "signer_unknown", by=UTILITY, cosigners=[STRANGER])


def test_utility_owns_a_site_without_a_second_signature() -> None:
    world = World()
    world.apply(replace(SOLAR_ROOF, owner=UTILITY.address, design_document=None), by=UTILITY)


def test_only_a_utility_registers_sites() -> None:
    world = World()
    world.refuses(SOLAR_ROOF, "role_missing", by=ALICE)
    world.refuses(SOLAR_ROOF, "role_missing", by=ADMIN, cosigners=[ALICE])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (replace(SOLAR_ROOF, capacity_w=0), "number_out_of_range"),
        (replace(SOLAR_ROOF, zone=""), "text_length_out_of_range"),
        (replace(SOLAR_ROOF, zone="Z" * 17), "text_length_out_of_range"),
        (replace(SOLAR_ROOF, label="roof\n"), "text_not_printable"),
        (replace(SOLAR_ROOF, design_document=b""), "bytes_length_out_of_range"),
    ],
)
def test_fields_have_limits(change: RegisterSite, reason: str) -> None:
    world = World()
    with pytest.raises(Malformed, match=reason):
        world.apply(change, by=UTILITY, cosigners=[ALICE])


def test_an_unknown_site_is_named_so() -> None:
    with pytest.raises(RuleViolated, match="site_unknown"):
        get_site(World().state, bytes(16))
