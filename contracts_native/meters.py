"""Meters: measuring points with a signing key of their own.

Owns which key speaks for a meter at each time, what its channels can measure, and when it was active. One key signs
for both channels; a meter's id follows from its utility and serial, so the same meter cannot be registered twice.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
METER_ID_BYTES: Final = 16
REASON_BYTES_MAX: Final = 256
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


# (status, transaction) → the status that follows; a proposal that both have signed is accepted as it
# is made. What is not here is refused.
METER_TRANSITIONS: Final[Mapping[tuple[MeterStatus, str], MeterStatus]] = {
    (MeterStatus.PROPOSED, "meter.register"): MeterStatus.ACTIVE,
    (MeterStatus.ACTIVE, "meter.suspend"): MeterStatus.SUSPENDED,
    (MeterStatus.ACTIVE, "meter.rotate_key"): MeterStatus.ACTIVE,
    (MeterStatus.SUSPENDED, "meter.resume"): MeterStatus.ACTIVE,
    (MeterStatus.SUSPENDED, "meter.retire"): MeterStatus.RETIRED,
    (MeterStatus.SUSPENDED, "meter.rotate_key"): MeterStatus.SUSPENDED,
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
    """A measuring point and the key in force for it.

    ``status_since_ms`` and ``key_since_ms``: from when on; what was before stands in ``PAUSES`` and ``PAST_KEYS``.
    """

    site: SiteId
    utility: Address
    serial: Serial
    key: MeterKey
    channels: ChannelSpecs
    commissioned_ms: InstantMs
    status: MeterStatus
    status_since_ms: InstantMs
    key_since_ms: InstantMs


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """The meter that a key was given to, found by the key's SHA-256; no second meter may have it."""

    meter: MeterId


@dataclass(frozen=True, slots=True)
class SiteMeter:
    """That a meter stands at a site."""

    registered_ms: int


@dataclass(frozen=True, slots=True)
class Pause:
    """A meter was suspended from here until it resumed, which the key says."""

    from_ms: int


@dataclass(frozen=True, slots=True)
class PastKey:
    """The key that was in force until another took its place, which the key of the entry says."""

    key: MeterKey


@dataclass(frozen=True, slots=True)
class ChannelRecord:
    """Where a channel stands: its last sequence number, and the end of its latest interval."""

    sequence: int
    end_ms: int
    register_wh: int


METERS: Table[Meter] = Table("me", Meter, missing="meter_unknown", is_hot=True)
METER_KEYS: Table[KeyHolder] = Table("mk", KeyHolder, missing="meter_key_unknown")
SITE_METERS: Table[SiteMeter] = Table("ms", SiteMeter, missing="meter_not_at_site")  # site, meter
PAUSES: Table[Pause] = Table("mp", Pause, missing="meter_not_paused")  # meter, when it resumed
PAST_KEYS: Table[PastKey] = Table("mo", PastKey, missing="meter_key_unknown")  # meter, until when it was in force
CHANNELS: Table[ChannelRecord] = Table("rc", ChannelRecord, missing="channel_unknown", is_hot=True)  # meter, channel


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


@event("meter.status_changed")
@dataclass(frozen=True, slots=True)
class MeterStatusChanged(Event):
    """A meter was suspended, resumed or retired from a date on."""

    meter: MeterId
    status: MeterStatus
    from_ms: int
    reason: str


@event("meter.key_rotated")
@dataclass(frozen=True, slots=True)
class MeterKeyRotated(Event):
    """Another key speaks for a meter from a date on."""

    meter: MeterId
    key: MeterKey
    from_ms: int


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


def list_site_meters(state: State, site: bytes) -> list[tuple[bytes, Meter]]:
    """The meters of a site with their ids, by id."""
    ids = [key[-METER_ID_BYTES:] for key, _ in SITE_METERS.scan(state, site)]
    return [(meter_id, get_meter(state, meter_id)) for meter_id in ids]


def get_last_end_ms(state: State, meter_id: bytes) -> int:
    """The end of the last interval that a meter reported on any channel; 0 if it never did."""
    records = [CHANNELS.find(state, meter_id, channel) for channel in Channel]
    return max((record.end_ms for record in records if record is not None), default=0)


def get_key(state: State, meter_id: bytes, meter: Meter, *, start_ms: int, end_ms: int) -> MeterKey:
    """The one key that speaks for a meter all through a period, in which it was active throughout.

    Raises ``RuleViolated`` (``meter_not_active``, ``reading_spans_key_change``).
    """
    if meter.status is not MeterStatus.ACTIVE or start_ms < meter.status_since_ms:
        _check_active(state, meter_id, meter, start_ms=start_ms, end_ms=end_ms)
    if start_ms >= meter.key_since_ms:
        return meter.key
    found = PAST_KEYS.find_above(state, meter_id, start_ms)
    assert found is not None, "a meter has had a key since it was commissioned"
    until_ms = int.from_bytes(found[0][-8:], "big")
    if end_ms > until_ms:
        raise RuleViolated("reading_spans_key_change", f"{meter_id.hex()} at {until_ms}")
    return found[1].key


def _check_active(state: State, meter_id: bytes, meter: Meter, *, start_ms: int, end_ms: int) -> None:
    if meter.status is not MeterStatus.ACTIVE and end_ms > meter.status_since_ms:
        raise RuleViolated("meter_not_active", f"{meter_id.hex()}: {meter.status} since {meter.status_since_ms}")
    found = PAUSES.find_above(state, meter_id, start_ms)
    if found is not None and found[1].from_ms < end_ms:
        raise RuleViolated("meter_not_active", f"{meter_id.hex()}: suspended since {found[1].from_ms}")


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
        _check_new_key(state, self.key)
        if self.commissioned_ms < site.commissioned_ms:
            raise RuleViolated("meter_commissioned_before_site", self.serial)
        _check_channels(self.channels, site)
        meter = Meter(
            self.site,
            tx.sender,
            self.serial,
            self.key,
            self.channels,
            self.commissioned_ms,
            METER_TRANSITIONS[MeterStatus.PROPOSED, "meter.register"],
            status_since_ms=self.commissioned_ms,
            key_since_ms=self.commissioned_ms,
        )
        METERS.put(state, meter_id, value=meter)
        SITE_METERS.put(state, self.site, meter_id, value=SiteMeter(tx.time_ms))
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


@transaction("meter.suspend", roles=(Role.UTILITY,))
@dataclass(frozen=True, slots=True)
class SuspendMeter(Payload):
    """No interval from a date on counts until the meter resumes; the date is not before its last reading."""

    meter: MeterId
    from_ms: InstantMs
    reason: Annotated[str, Length(REASON_BYTES_MAX, 1)]

    def apply(self, state: State, tx: TxContext) -> None:
        _change_status(state, tx, self.meter, self.from_ms, reason=self.reason, tag="meter.suspend")


@transaction("meter.resume", roles=(Role.UTILITY,))
@dataclass(frozen=True, slots=True)
class ResumeMeter(Payload):
    """Intervals from a date on count again; what lies in between never does."""

    meter: MeterId
    from_ms: InstantMs

    def apply(self, state: State, tx: TxContext) -> None:
        before = _change_status(state, tx, self.meter, self.from_ms, reason="", tag="meter.resume")
        PAUSES.put(state, self.meter, self.from_ms, value=Pause(before.status_since_ms))


@transaction("meter.retire", roles=(Role.UTILITY,))
@dataclass(frozen=True, slots=True)
class RetireMeter(Payload):
    """A suspended meter never reports again; what it measured before its suspension may still come in."""

    meter: MeterId
    reason: Annotated[str, Length(REASON_BYTES_MAX, 1)]

    def apply(self, state: State, tx: TxContext) -> None:
        _change_status(state, tx, self.meter, None, reason=self.reason, tag="meter.retire")


@transaction("meter.rotate_key", roles=(Role.UTILITY,))
@dataclass(frozen=True, slots=True)
class RotateMeterKey(Payload):
    """Another key speaks for a meter from a date on; the site's owner countersigns, as for the first key.

    The date lies after the last rotation and not before the meter's last reading. No key ever comes back.
    """

    meter: MeterId
    key: MeterKey
    from_ms: InstantMs

    def apply(self, state: State, tx: TxContext) -> None:
        meter = _get_own_meter(state, self.meter, tx, "meter.rotate_key")
        check_countersigned(tx, get_site(state, meter.site).owner)
        _check_new_key(state, self.key)
        if self.from_ms <= meter.key_since_ms:
            raise RuleViolated("meter_change_before_the_last", f"{self.from_ms} is not after {meter.key_since_ms}")
        _check_date(state, self.meter, self.from_ms, tx)
        PAST_KEYS.put(state, self.meter, self.from_ms, value=PastKey(meter.key))
        METERS.put(state, self.meter, value=replace(meter, key=self.key, key_since_ms=self.from_ms))
        METER_KEYS.put(state, sha256(self.key), value=KeyHolder(self.meter))
        state.emit(MeterKeyRotated(self.meter, self.key, self.from_ms))


def _get_own_meter(state: State, meter_id: bytes, tx: TxContext, tag: str) -> Meter:
    meter = get_meter(state, meter_id)
    if meter.utility != tx.sender:
        raise NotPermitted("meter_of_another_utility", format_address(meter.utility))
    if (meter.status, tag) not in METER_TRANSITIONS:
        raise RuleViolated("meter_not_open_to_this", f"{meter_id.hex()} is {meter.status}: no {tag}")
    return meter


def _check_date(state: State, meter_id: bytes, from_ms: int, tx: TxContext) -> None:
    if from_ms > tx.time_ms:
        raise RuleViolated("meter_change_in_the_future", from_ms)
    last_ms = get_last_end_ms(state, meter_id)
    if from_ms < last_ms:
        raise RuleViolated("meter_change_before_last_reading", f"{meter_id.hex()} reported until {last_ms}")


def _change_status(
    state: State, tx: TxContext, meter_id: bytes, from_ms: int | None, *, reason: str, tag: str
) -> Meter:
    """Give a meter its next status; ``from_ms`` None leaves the date as it is. The meter as it was."""
    meter = _get_own_meter(state, meter_id, tx, tag)
    since_ms = meter.status_since_ms if from_ms is None else from_ms
    if from_ms is not None:
        if from_ms <= meter.status_since_ms:
            raise RuleViolated("meter_change_before_the_last", f"{from_ms} is not after {meter.status_since_ms}")
        _check_date(state, meter_id, from_ms, tx)
    status = METER_TRANSITIONS[meter.status, tag]
    METERS.put(state, meter_id, value=replace(meter, status=status, status_since_ms=since_ms))
    state.emit(MeterStatusChanged(meter_id, status, since_ms, reason))
    return meter


def _check_new_key(state: State, key: MeterKey) -> None:
    if not is_valid_meter_key(key):
        raise RuleViolated("meter_key_invalid", key.hex())
    if METER_KEYS.find(state, sha256(key)) is not None:
        raise RuleViolated("meter_key_already_used", key.hex())
