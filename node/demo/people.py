"""The people of the demo and their meters: every key, and the transactions that make them known to the ledger.

Owns what each of them signs first: registration with proof of the key, sites with the owner's countersignature, meters
with keys of their own, of both schemes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from contracts_native.meters import Channel, ChannelSpec, RegisterMeter, compute_meter_id
from contracts_native.participants import RegisterParticipant, Role, make_possession_message
from contracts_native.readings import UNSIGNED, Flag, Report, sign_report
from contracts_native.sites import RegisterSite, Technology
from ledger.primitives import Address, format_address
from node.demo.data import INTERVAL_S, Community, Place
from node.keystore import MeterSigningKey, Scheme, SigningKey

ZONE: Final = "DE-LV2.101"
COMMISSIONED_MS: Final = 1_451_606_400_000  # 2016-01-01T00:00Z
FIRST_REGISTER_WH: Final = 120_000


class Meter:
    """A metering device: knows its key, its register and its sequence number, and signs what it counted."""

    def __init__(self, serial: str, channel: Channel, key: MeterSigningKey, *, utility: Address) -> None:
        self.serial = serial
        self.channel = channel
        self.key = key
        self.meter_id = compute_meter_id(utility, serial)
        self._register_wh = FIRST_REGISTER_WH
        self._sequence = 0

    def count(self, chain_id: str, *, start_ms: int, values_wh: Sequence[int]) -> Report:
        """The next report: consecutive intervals from ``start_ms`` on, under one signature."""
        self._sequence += 1
        register_start_wh = self._register_wh
        self._register_wh += sum(values_wh)
        report = Report(
            meter=self.meter_id,
            channel=self.channel,
            sequence=self._sequence,
            start_ms=start_ms,
            interval_s=INTERVAL_S,
            values_wh=tuple(values_wh),
            register_start_wh=register_start_wh,
            register_end_wh=self._register_wh,
            flag=Flag.MEASURED,
            signature=UNSIGNED,
        )
        return sign_report(report, chain_id, self.key.sign)


@dataclass(frozen=True, slots=True)
class Person:
    """The owner of one site, with its meter."""

    place: Place
    role: Role
    key: SigningKey
    meter: Meter

    @property
    def address(self) -> Address:
        """The participant on the ledger."""
        return self.key.address

    @property
    def address_text(self) -> str:
        """The participant as questions name it."""
        return format_address(self.key.address)


@dataclass(frozen=True, slots=True)
class Cast:
    """Everyone who signs in the story. ``owners`` is by the name of the site."""

    utility: SigningKey
    oracle: SigningKey
    fulfilment: SigningKey
    owners: dict[str, Person]
    producers: tuple[Person, ...]
    consumers: tuple[Person, ...]


def make_cast(community: Community, load_key: Callable[[str], SigningKey]) -> Cast:
    """New keys for every owner and meter; ``load_key`` gives the keys of the consortium's members by role."""
    utility = load_key("utility")
    people = [_make_person(place, number, community, utility.address) for number, place in enumerate(community.places)]
    cut = len(community.producers)
    return Cast(
        utility=utility,
        oracle=load_key("oracle"),
        fulfilment=load_key("fulfilment"),
        owners={person.place.name: person for person in people},
        producers=tuple(people[:cut]),
        consumers=tuple(people[cut:]),
    )


def make_registration(person: Person, *, chain_id: str, utility: Address) -> RegisterParticipant:
    """What the utility signs to register a customer, with the customer's proof of its key."""
    public_key = person.key.public_key
    possession = person.key.sign(make_possession_message(chain_id, utility, public_key))
    return RegisterParticipant(public_key, possession, (person.role,), person.place.label)


def make_site(person: Person) -> RegisterSite:
    """What the utility and the owner sign to register a site."""
    place = person.place
    technology = Technology(place.kind) if person.meter.channel is Channel.PRODUCTION else Technology.LOAD
    return RegisterSite(person.address, technology, ZONE, place.rated_w, place.label, COMMISSIONED_MS)


def make_meter(person: Person, *, site: bytes) -> RegisterMeter:
    """What the utility and the owner sign to register a meter with its own key."""
    channels = (ChannelSpec(person.meter.channel, person.place.rated_w, INTERVAL_S),)
    return RegisterMeter(site, person.meter.serial, person.meter.key.public_key, channels, COMMISSIONED_MS)


def _make_person(place: Place, number: int, community: Community, utility: Address) -> Person:
    is_producer = number < len(community.producers)
    scheme: Scheme = "p256" if number % 2 else "ed25519"
    channel = Channel.PRODUCTION if is_producer else Channel.CONSUMPTION
    meter = Meter(f"M-{place.name[:3].upper()}", channel, MeterSigningKey.generate(scheme), utility=utility)
    return Person(place, Role.PROSUMER if is_producer else Role.CONSUMER, SigningKey.generate(), meter)
