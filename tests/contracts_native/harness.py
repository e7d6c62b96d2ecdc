"""A world for the tests of the contracts: people, meters that sign, and one transaction at a time.

Every payload takes the whole way: JSON form, signed envelope, decoding, signatures, rules, stored bytes and back. A
refusal must leave the state as it was. Keys follow from names, so that a test is the same each time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

import nacl.signing
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from contracts_native.batteries import STORED, WAITING, list_sources
from contracts_native.claims import CLAIMS, get_lost_wh
from contracts_native.lots import MINTS, REISSUES, Lot, LotId, get_lot, get_slices, is_withdrawn
from contracts_native.matching import CLAIMED, CLAIMS_ON
from contracts_native.meters import METERS, Channel, ChannelSpec, RegisterMeter, compute_meter_id
from contracts_native.participants import FreezeParticipant, Role
from contracts_native.readings import (
    REPORTS,
    Flag,
    IntervalState,
    Report,
    SubmitReadings,
    apply_revisions,
    find_report_at,
    list_facts,
    make_report_message,
)
from contracts_native.sites import PER_MILLE, RegisterSite, Technology, get_site
from contracts_native.slices import SliceStatus, is_partition
from contracts_native.table import load_table
from ledger.errors import Rejected
from ledger.execution import execute_transaction
from ledger.fields import get_codec
from ledger.genesis import GenesisDocument, GenesisParticipant, GenesisValidator, compute_genesis_changes
from ledger.parameters import Parameters
from ledger.primitives import Address, Hash, MeterKey, PublicKey, Signature, compute_address, sha256
from ledger.receipt import Event, Receipt, compute_event_leaves, decode_receipts, encode_receipts
from ledger.state import State
from ledger.storage import MemoryStore
from ledger.transaction import (
    BlockContext,
    Payload,
    check_signatures,
    decode_transaction,
    make_body,
    make_object_id,
    sign_transaction,
)

CHAIN_ID: Final = "test-1"
SECOND_MS: Final = 1_000
HOUR_MS: Final = 3_600_000
QUARTER_MS: Final = HOUR_MS // 4
DAY_MS: Final = 24 * HOUR_MS
DAY_0_MS: Final = 1_717_632_000_000  # 2024-06-06T00:00Z: sites and meters are commissioned, readings begin
NOW_MS: Final = DAY_0_MS + 30 * DAY_MS  # block time, until a test sets another
CREDIT_LIMIT_CENTS: Final = 1_000_000
P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

E = TypeVar("E", bound=Event)


@dataclass(frozen=True, slots=True)
class Person:
    """A participant's name with the key that follows from it."""

    name: str
    seed: bytes = field(repr=False)
    public_key: PublicKey
    address: Address

    def sign(self, message: bytes) -> Signature:
        return Signature(nacl.signing.SigningKey(self.seed).sign(message).signature)


def make_person(name: str) -> Person:
    seed = sha256(b"person " + name.encode())
    public_key = PublicKey(bytes(nacl.signing.SigningKey(seed).verify_key))
    return Person(name, seed, public_key, compute_address(public_key))


ADMIN: Final = make_person("admin")
UTILITY: Final = make_person("utility")
RIVAL: Final = make_person("rival")  # another utility
ALICE: Final = make_person("alice")  # prosumer
BOB: Final = make_person("bob")  # consumer
CAROL: Final = make_person("carol")  # investor
AUDITOR: Final = make_person("auditor")
FULFILMENT: Final = make_person("fulfilment")
ORACLE: Final = make_person("oracle")
MEASURER: Final = make_person("measurer")  # the measurement body
STRANGER: Final = make_person("stranger")  # registered nowhere

ROLES: Final[Mapping[Person, tuple[Role, ...]]] = {
    ADMIN: (Role.ADMIN,),
    UTILITY: (Role.UTILITY,),
    RIVAL: (Role.UTILITY,),
    ALICE: (Role.PROSUMER,),
    BOB: (Role.CONSUMER,),
    CAROL: (Role.INVESTOR,),
    AUDITOR: (Role.AUDITOR,),
    FULFILMENT: (Role.FULFILMENT,),
    ORACLE: (Role.ORACLE,),
    MEASURER: (Role.MEASUREMENT_BODY,),
}


@dataclass(frozen=True, slots=True)
class Applied:
    """A transaction that applied."""

    tx_id: Hash
    events: tuple[Event, ...]

    def make_id(self, kind: str) -> bytes:
        """The id of the object that it created."""
        return make_object_id(kind, self.tx_id)

    def all_of(self, kind: type[E]) -> list[E]:
        return [one for one in self.events if isinstance(one, kind)]

    def one(self, kind: type[E]) -> E:
        (only,) = self.all_of(kind)
        return only


class World:
    """A state with the people above in it. ``time_ms`` is the time of the next block; set it as you like."""

    def __init__(self, parameters: Parameters | None = None) -> None:
        self.table = load_table()
        self.time_ms = NOW_MS
        self.height = 0
        self.store = MemoryStore()
        document = make_genesis(parameters or Parameters())
        self.store.write(compute_genesis_changes(document, self.table))
        self.state = State(self.store)
        self._salt = 0
        self._serial = 0

    def sign(self, payload: Payload, *, by: Person, cosigners: Sequence[Person] = ()) -> bytes:
        """The signed envelope of a payload; its JSON form is checked by the way."""
        codec = get_codec(type(payload))
        assert codec.from_json(codec.to_json(payload)) == payload
        self._salt += 1
        body = make_body(
            chain_id=CHAIN_ID,
            payload=payload,
            sender=by.address,
            valid_until=self.height + 10,
            salt=self._salt.to_bytes(8, "big"),
            cosigners=[person.address for person in cosigners],
        )
        return sign_transaction(body, [(person.public_key, person.sign) for person in (by, *cosigners)])

    def apply(self, payload: Payload, *, by: Person, cosigners: Sequence[Person] = ()) -> Applied:
        """Apply a payload in a block of its own. Raises ``Rejected``, with the state as it was."""
        tx = decode_transaction(self.sign(payload, by=by, cosigners=cosigners), self.table)
        assert tx.payload == payload
        check_signatures(tx)
        before = self.state.compute_changes()
        context = BlockContext(CHAIN_ID, self.height + 1, self.time_ms, version=1)
        try:
            events = execute_transaction(self.state, tx, self.table, context, index=0)
        except Rejected:
            assert self.state.compute_changes() == before
            raise
        receipts = (Receipt(tx.tx_id, events),)
        assert decode_receipts(encode_receipts(receipts, compute_event_leaves(receipts)), self.table.events) == receipts
        self.height += 1
        self.commit()
        return Applied(tx.tx_id, events)

    def refuses(self, payload: Payload, reason: str, *, by: Person, cosigners: Sequence[Person] = ()) -> Rejected:
        """The payload is refused for this very reason; the refusal is returned."""
        with pytest.raises(Rejected) as caught:
            self.apply(payload, by=by, cosigners=cosigners)
        assert caught.value.reason == reason, caught.value
        return caught.value

    def commit(self) -> None:
        """Write what changed, so that the next read decodes stored bytes. Call it after a change by hand."""
        self.store.write(self.state.compute_changes())
        self.state = State(self.store)

    def register_site(
        self,
        owner: Person,
        *,
        technology: Technology = Technology.SOLAR,
        zone: str = "DE-LU",
        capacity_w: int = 10_000,
        utility: Person = UTILITY,
    ) -> bytes:
        """Register a site; its id."""
        payload = RegisterSite(owner.address, technology, zone, capacity_w, f"site of {owner.name}", DAY_0_MS)
        cosigners = [] if owner == utility else [owner]
        return self.apply(payload, by=utility, cosigners=cosigners).make_id("site")

    def register_meter(
        self,
        owner: Person,
        site: bytes,
        *,
        channels: Sequence[Channel] = tuple(Channel),
        interval_s: int = 900,
        capacity_w: int = 10_000,
        scheme: str = "ed25519",
        utility: Person = UTILITY,
    ) -> SigningMeter:
        """Register a meter at a site; ``scheme`` is ed25519 or p256."""
        self._serial += 1
        meter = SigningMeter(utility.address, f"M-{self._serial:04}", interval_s=interval_s, scheme=scheme)
        specs = tuple(ChannelSpec(channel, capacity_w, interval_s) for channel in channels)
        payload = RegisterMeter(site, meter.serial, meter.key, specs, DAY_0_MS)
        self.apply(payload, by=utility, cosigners=[] if owner == utility else [owner])
        return meter

    def add_producer(
        self, owner: Person, *, zone: str = "DE-LU", interval_s: int = 900, technology: Technology = Technology.SOLAR
    ) -> SigningMeter:
        """A site of 10 kW that produces, with its meter."""
        site = self.register_site(owner, zone=zone, technology=technology)
        return self.register_meter(owner, site, channels=[Channel.PRODUCTION], interval_s=interval_s)

    def add_consumer(self, owner: Person, *, zone: str = "DE-LU", interval_s: int = 900) -> SigningMeter:
        """A site of 10 kW that only consumes, with its meter."""
        site = self.register_site(owner, zone=zone, technology=Technology.LOAD)
        return self.register_meter(owner, site, channels=[Channel.CONSUMPTION], interval_s=interval_s)

    def submit(self, *reports: Report, by: Person = ORACLE) -> Applied:
        return self.apply(SubmitReadings(reports), by=by)

    def produce(self, meter: SigningMeter, *values_wh: int, start_ms: int | None = None) -> list[LotId]:
        """Submit measured production; the lots of its intervals, in order."""
        report = meter.report(Channel.PRODUCTION, values_wh, start_ms=start_ms)
        self.submit(report)
        return [LotId(meter.meter_id, report.start_ms + i * meter.interval_ms, 1) for i in range(len(values_wh))]

    def consume(self, meter: SigningMeter, *values_wh: int, start_ms: int | None = None) -> Report:
        """Submit measured consumption."""
        report = meter.report(Channel.CONSUMPTION, values_wh, start_ms=start_ms)
        self.submit(report)
        return report

    def freeze(self, person: Person) -> None:
        """As the auditor does."""
        self.apply(FreezeParticipant(person.address, "under suspicion"), by=AUDITOR)


class SigningMeter:
    """A meter with its key: counts sequence numbers, remembers its registers, signs reports."""

    def __init__(
        self, utility: Address, serial: str, *, interval_s: int, scheme: str, chain_id: str = CHAIN_ID
    ) -> None:
        self.serial = serial
        self.meter_id = compute_meter_id(utility, serial)
        self.interval_s = interval_s
        self.interval_ms = interval_s * SECOND_MS
        self.chain_id = chain_id
        self._seed = sha256(b"meter " + utility + serial.encode())
        self._scheme = scheme
        self.key = compute_meter_key(self._seed, scheme)
        self._sequences = dict.fromkeys(Channel, 0)
        self._registers_wh = dict.fromkeys(Channel, 5_000)
        self._ends_ms = dict.fromkeys(Channel, DAY_0_MS)

    def report(
        self,
        channel: Channel,
        values_wh: Sequence[int],
        *,
        start_ms: int | None = None,
        register_start_wh: int | None = None,
        flag: Flag = Flag.MEASURED,
    ) -> Report:
        """The next report of a channel, signed; without ``start_ms`` it goes on where the last one ended."""
        start_ms = self._ends_ms[channel] if start_ms is None else start_ms
        register_wh = self._registers_wh[channel] if register_start_wh is None else register_start_wh
        self._sequences[channel] += 1
        report = Report(
            meter=self.meter_id,
            channel=channel,
            sequence=self._sequences[channel],
            start_ms=start_ms,
            interval_s=self.interval_s,
            values_wh=tuple(values_wh),
            register_start_wh=register_wh,
            register_end_wh=register_wh + sum(values_wh),
            flag=flag,
            signature=Signature(bytes(64)),
        )
        if report.end_ms > self._ends_ms[channel]:
            self._ends_ms[channel] = report.end_ms
            self._registers_wh[channel] = report.register_end_wh
        return self.sign(report)

    def skip_to(self, sequence: int) -> None:
        """Go on with the sequence number after this one."""
        self._sequences = dict.fromkeys(Channel, sequence)

    def sign(self, report: Report) -> Report:
        """The report with this meter's signature, whatever it says: also for reports that must be refused."""
        message = make_report_message(self.chain_id, report)
        return replace(report, signature=sign_as_meter(self._seed, self._scheme, message))


def compute_meter_key(seed: bytes, scheme: str) -> MeterKey:
    """The public key of a meter: 32 bytes for ed25519, 33 for p256."""
    if scheme == "ed25519":
        return MeterKey(bytes(nacl.signing.SigningKey(seed).verify_key))
    form = serialization.PublicFormat.CompressedPoint
    return MeterKey(_make_p256_key(seed).public_key().public_bytes(serialization.Encoding.X962, form))


def sign_as_meter(seed: bytes, scheme: str, message: bytes) -> Signature:
    """A meter's signature, 64 bytes; p256 with the lower s."""
    if scheme == "ed25519":
        return Signature(nacl.signing.SigningKey(seed).sign(message).signature)
    algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    r, s = utils.decode_dss_signature(_make_p256_key(seed).sign(message, algorithm))
    return Signature(r.to_bytes(32, "big") + min(s, P256_ORDER - s).to_bytes(32, "big"))


def _make_p256_key(seed: bytes) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(seed, "big") % (P256_ORDER - 1) + 1, ec.SECP256R1())


def make_genesis(parameters: Parameters) -> GenesisDocument:
    """The people above at the start of a chain; the first utility may issue credits."""
    participants = tuple(
        GenesisParticipant(person.public_key, person.name, tuple(roles), CREDIT_LIMIT_CENTS if person == UTILITY else 0)
        for person, roles in ROLES.items()
    )
    validators = (GenesisValidator(make_person("validator").public_key, "validator"),)
    return GenesisDocument(CHAIN_ID, DAY_0_MS, validators, participants, parameters)


def list_lots(state: State) -> list[Lot]:
    """Every lot that was ever minted."""
    ids = [
        LotId(key[3:19], record.start_ms + index * record.interval_s * 1_000, record.version)
        for key, record in MINTS.scan(state)
        for index, wh in enumerate(record.wh)
        if wh
    ]
    ids += [
        LotId(key[3:19], int.from_bytes(key[19:27], "big"), int.from_bytes(key[27:], "big"))
        for key, _ in REISSUES.scan(state)
    ]
    return [get_lot(state, lot_id) for lot_id in ids]


def check_energy_conserved(state: State) -> dict[SliceStatus, int]:
    """Slices partition their lots, hourly claims fit what was recorded, metered Wh all went somewhere. Wh by status."""
    totals = dict.fromkeys(SliceStatus, 0)
    live: Counter[tuple[bytes, int]] = Counter()  # meter, start → lots
    live_wh = minted_wh = 0
    for lot in list_lots(state):
        slices = get_slices(state, lot.lot)
        assert is_partition(slices, lot.wh)
        minted_wh += lot.wh
        for one in slices:
            totals[one.status] += one.wh
        if is_withdrawn(state, lot.lot):
            assert {one.status for one in slices} <= {SliceStatus.WITHDRAWN, SliceStatus.CLAIMED, SliceStatus.CHARGED}
        else:
            live[lot.lot.meter, lot.start_ms] += 1
            live_wh += lot.wh
            assert SliceStatus.WITHDRAWN not in {one.status for one in slices}
    assert sum(totals.values()) == minted_wh
    assert all(count == 1 for count in live.values()), "one live lot for an interval at most"
    assert live_wh == _sum_minted(state)
    check_claims_conserved(state)
    check_storage_conserved(state)
    return totals


def check_storage_conserved(state: State) -> None:
    """What a storage gave back, and may still give back, is within what its efficiency leaves of each charge."""
    given_back: Counter[tuple[bytes, int, bytes]] = Counter()  # meter, end of the interval, charge
    for lot in list_lots(state):
        sources = list_sources(state, lot.lot)
        assert lot.technology is not Technology.STORAGE or sum(source.wh for source in sources) == lot.wh
        if not is_withdrawn(state, lot.lot):
            for source in sources:
                assert source.end_ms <= lot.start_ms, "nothing comes out before it went in"
                given_back[lot.lot.meter, source.end_ms, source.charge] += source.wh
    for key, stored in STORED.scan(state):
        meter, end_ms, charge = key[3:19], int.from_bytes(key[19:27], "big"), key[27:]
        most_wh = stored.charged_wh * stored.efficiency_per_mille // PER_MILLE
        assert given_back.pop((meter, end_ms, charge), 0) == stored.given_back_wh
        assert stored.given_back_wh + stored.left_wh <= most_wh
        waiting = WAITING.find(state, meter, end_ms, charge)
        assert (0 if waiting is None else waiting.left_wh) == stored.left_wh
    assert not given_back, "all that came out was charged"


def check_claims_conserved(state: State) -> None:
    """Hourly claims fit what was recorded, and are the sum of what each claim has; a claim loses what it had."""
    by_claim: Counter[tuple[bytes, int]] = Counter()  # consumption meter, start of the report → Wh of all claims
    for key, one in CLAIMS_ON.scan(state):
        by_claim[key[3:19], int.from_bytes(key[19:27], "big")] += one.wh
    for key, claimed in CLAIMED.scan(state):
        meter, start_ms = key[3:19], int.from_bytes(key[19:27], "big")
        report = find_report_at(state, meter, Channel.CONSUMPTION, start_ms)
        assert report is not None
        assert all(0 <= part <= whole for part, whole in zip(claimed.wh, report.values_wh, strict=True))
        assert sum(claimed.wh) == by_claim.pop((meter, start_ms), 0)
    assert not by_claim
    matched_wh = sum(one.wh for _, one in CLAIMS_ON.scan(state))
    for key, claim in CLAIMS.scan(state):
        lost_wh = get_lost_wh(state, key[3:], claim)
        assert all(0 <= lost <= ref.wh for lost, ref in zip(lost_wh, claim.slices, strict=True))
        if claim.consumption_meter is not None:
            matched_wh -= claim.wh - sum(lost_wh)
    assert matched_wh == 0, "what claims have and did not lose is what they are set against"


def _sum_minted(state: State) -> int:
    """What the reports say was minted and stands, storages by what stands behind them."""
    total_wh = 0
    for meter_id, meter in METERS.scan(state):
        is_storage = get_site(state, meter.site).technology is Technology.STORAGE
        for _, stored in REPORTS.scan(state, meter_id[3:], Channel.PRODUCTION):
            record = apply_revisions(state, meter_id[3:], Channel.PRODUCTION, stored)
            for fact in list_facts(state, meter_id[3:], Channel.PRODUCTION, record):
                if fact.state is IntervalState.MINTED:
                    total_wh += fact.minted_wh if is_storage else fact.wh
    return total_wh
