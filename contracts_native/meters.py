"""Meters: measuring points with a signing key of their own.

Owns which key speaks for a meter, what its channels can measure, and its status. One key signs for both channels;
a meter's id follows from its utility and serial, so the same meter cannot be registered twice.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Final

import nacl.bindings
from cryptography.hazmat.primitives.asymmetric import ec

from contracts_native.participants import Role
from contracts_native.sites import CapacityW, InstantMs, Site, SiteId, Technology, check_countersigned, get_site
from ledger.errors import NotPermitted, RuleViolated
from ledger.fields import Length
from ledger.primitives import P256_KEY_BYTES, Address, MeterKey, format_address, sha256
from ledger.receipt import Event, event
from ledger.state import State
from ledger.tables import Table
from ledger.transaction import Payload, TxContext, make_object_id, transaction

SERIAL_BYTES_MAX: Final = 64
CHANNELS_MAX: Final = 2
INTERVALS_S: Final = frozenset({60, 300, 600, 900, 1_800, 3_600})


class Channel(enum.StrEnum):
    """The direction of energy, seen from the site."""

    PRODUCTION = "production"
    CONSUMPTION = "consumption"


class MeterStatus(enum.StrEnum):
    """Only an active meter's reports are accepted."""

    PROPOSED = "proposed"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    RETIRED = "retired"


TRANSITIONS: Final[Mapping[MeterStatus, frozenset[MeterStatus]]] = {
    MeterStatus.PROPOSED: frozenset({MeterStatus.ACTIVE}),
    MeterStatus.ACTIVE: frozenset({MeterStatus.SUSPENDED}),
    MeterStatus.SUSPENDED: frozenset({MeterStatus.ACTIVE, MeterStatus.RETIRED}),
    MeterStatus.RETIRED: frozenset(),
}

MeterId = Annotated[bytes, Length(16, 16)]
Serial = Annotated[str, Length(SERIAL_BYTES_MAX, 1)]


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """One direction of a meter: the most it can measure, and the one interval length in which it reports."""

    channel: Channel
    capacity_w: CapacityW
    interval_s: int


ChannelSpecs = Annotated[tuple[ChannelSpec, ...], Length(CHANNELS_MAX, 1)]


@dataclass(frozen=True, slots=True)
class Meter:
    """A measuring point and the key in force for it."""

    site: SiteId
    utility: Address
    serial: Serial
    key: MeterKey
    channels: ChannelSpecs
    commissioned_ms: InstantMs
    status: MeterStatus


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """The meter that a key was given to, found by the key's SHA-256; no second meter may have it."""

    meter: MeterId


METERS: Table[Meter] = Table("me", Meter, missing="meter_unknown", is_hot=True)
METER_KEYS: Table[KeyHolder] = Table("mk", KeyHolder, missing="meter_key_unknown")


@event("meter.registered")
@dataclass(frozen=True, slots=True)
class MeterRegistered(Event):
    """A meter may report from now on."""

    meter: MeterId
    site: SiteId
    utility: Address
    serial: Serial
    key: MeterKey
    channels: ChannelSpecs


def compute_meter_id(utility: Address, serial: str) -> bytes:
    """The id of a utility's meter."""
    return make_object_id("meter", utility, serial.encode())


def get_meter(state: State, meter: bytes) -> Meter:
    """A registered meter. Raises ``RuleViolated`` (``meter_unknown``)."""
    return METERS.get(state, meter)


def find_channel(meter: Meter, channel: Channel) -> ChannelSpec | None:
    """What a meter's channel can measure, or None if it has no such channel."""
    for spec in meter.channels:
        if spec.channel is channel:
            return spec
    return None


def is_valid_meter_key(key: MeterKey) -> bool:
    """Whether a key is a point that can have signed: Ed25519 of the main subgroup, or P-256 in compressed form."""
    if len(key) == P256_KEY_BYTES:
        try:
            ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key)
        except ValueError:
            return False
        return True
    return bool(nacl.bindings.crypto_core_ed25519_is_valid_point(key))


def check_transition(before: MeterStatus, after: MeterStatus) -> None:
    """Raises ``RuleViolated`` (``meter_status_cannot_follow``) unless ``after`` may follow ``before``."""
    if after not in TRANSITIONS[before]:
        raise RuleViolated("meter_status_cannot_follow", f"{after} after {before}")


@transaction("meter.register", roles=(Role.UTILITY,))
@dataclass(frozen=True, slots=True)
class RegisterMeter(Payload):
    """Register a meter at a site of the sending utility; the site's owner countersigns."""

    site: SiteId
    serial: Serial
    key: MeterKey
    channels: ChannelSpecs
    commissioned_ms: InstantMs

    def apply(self, state: State, tx: TxContext) -> None:
        site = get_site(state, self.site)
        if site.utility != tx.sender:
            raise NotPermitted("site_of_another_utility", format_address(site.utility))
        check_countersigned(tx, site.owner)
        meter_id = compute_meter_id(tx.sender, self.serial)
        if METERS.find(state, meter_id) is not None:
            raise RuleViolated("meter_already_registered", self.serial)
        if not is_valid_meter_key(self.key):
            raise RuleViolated("meter_key_invalid", self.key.hex())
        if METER_KEYS.find(state, sha256(self.key)) is not None:
            raise RuleViolated("meter_key_already_used", self.key.hex())
        if self.commissioned_ms < site.commissioned_ms:
            raise RuleViolated("meter_commissioned_before_site", self.serial)
        _check_channels(self.channels, site)
        # Both have signed, so that a proposal is accepted as it is made.
        check_transition(MeterStatus.PROPOSED, MeterStatus.ACTIVE)
        meter = Meter(
            self.site, tx.sender, self.serial, self.key, self.channels, self.commissioned_ms, MeterStatus.ACTIVE
        )
        METERS.put(state, meter_id, value=meter)
        METER_KEYS.put(state, sha256(self.key), value=KeyHolder(meter_id))
        state.emit(MeterRegistered(meter_id, self.site, tx.sender, self.serial, self.key, self.channels))


def _check_channels(channels: tuple[ChannelSpec, ...], site: Site) -> None:
    if len({spec.channel for spec in channels}) != len(channels):
        raise RuleViolated("channel_named_twice", channels[0].channel)
    for spec in channels:
        if spec.interval_s not in INTERVALS_S:
            raise RuleViolated("interval_length_not_allowed", f"{spec.interval_s} s")
        if spec.channel is Channel.PRODUCTION:
            if site.technology is Technology.LOAD:
                raise RuleViolated("load_cannot_produce", site.label)
            if spec.capacity_w > site.capacity_w:
                raise RuleViolated("channel_capacity_above_site", f"{spec.capacity_w} W of {site.capacity_w} W")
