"""The state machine's ground: people, places and what each step compares. The rules stand in the files beside it.

Each rule makes one transaction, asks the model for every reason against it, and lets the ledger judge: a refusal must
give one of those reasons, and without any reason there must be none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Final, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant

from contracts_native.amendments import SetShares
from contracts_native.credits import IssueCredits
from contracts_native.documents import DocumentAnchored, SetEncryptionKey, WrappedKey
from contracts_native.meters import Channel, ChannelSpec, RegisterMeter, compute_meter_id
from contracts_native.sites import RegisterSite, Technology
from ledger.errors import Rejected
from ledger.parameters import Parameters
from ledger.primitives import Address, Hash, MeterKey, PublicKey, sha256
from ledger.transaction import BlockContext, BlockEnd, Payload
from ledger.validators import VALIDATORS as VALIDATOR_TABLE
from ledger.validators import Member, ValidatorRecord, set_validators
from tests.contracts_native.harness import (
    ALICE,
    BOB,
    CAROL,
    CHAIN_ID,
    CREDIT_LIMIT_CENTS,
    DAY_0_MS,
    DAY_MS,
    ROLES,
    STRANGER,
    UTILITY,
    Applied,
    Person,
    World,
    compute_meter_key,
    make_person,
)
from tests.contracts_native.money import check_credits_conserved
from tests.contracts_native.test_documents import make_paper, make_x25519
from tests.properties.compare import check_same
from tests.properties.model import Reasons
from tests.properties.model_council import Model
from tests.properties.model_places import Looks, Meter, Site

START_MS: Final = DAY_0_MS + DAY_MS
PARAMETERS: Final = Parameters(
    lot_lifetime_s=2 * 86_400,
    escrow_silence_s=4 * 3_600,
    dispute_deadline_s=43_200,
    zone_pairs=(("FR", "DE"),),
)
EFFICIENCY: Final = 850  # of a storage until it is amended
CREDIT_CENTS: Final = 100  # of each trader at the start
SMALL_W: Final = 80  # 22 Wh of a quarter-hour are the most; above that it is quarantined
DAVE: Final = make_person("dave")
ERIN: Final = make_person("erin")
NEWCOMERS: Final = (DAVE, ERIN)
VALIDATORS: Final = tuple(make_person(f"v{number}") for number in range(4))
CANDIDATES: Final = tuple(make_person(f"v{number}") for number in (4, 5))

N: Final = st.integers(0, 99)  # which of some; 0 is the simplest
ODD: Final = st.integers(0, 15)  # from 13 on somebody or something is wrong on purpose
WRONG: Final = 13


@dataclass(frozen=True)
class Luck:
    """What chance decides of a step: who or what, how much, and whether something is wrong."""

    n: int
    cut: int
    odd: int


LUCK: Final = st.builds(Luck, n=N, cut=N, odd=ODD)
T = TypeVar("T")


def pick(some: Sequence[T], number: int) -> T:
    return some[number % len(some)]


class BlockWorld(World):
    """A world with validators, in which a block ends after each transaction."""

    def __init__(self, parameters: Parameters) -> None:
        super().__init__(parameters)
        members = tuple(Member(one.public_key, one.name) for one in VALIDATORS)
        set_validators(self.state, ValidatorRecord(members), from_height=0)
        self.commit()
        self.absent: bytes | None = None  # the validator that misses its turns

    def end_block(self) -> PublicKey:
        """The rule at the end of the block; who proposed it."""
        members = VALIDATOR_TABLE.get(self.state).members
        turns = [members[(self.height + one) % len(members)].public_key for one in range(2)]
        proposer = turns[turns[0] == self.absent]
        block = BlockContext(CHAIN_ID, self.height, self.time_ms, version=1)
        self.table.finish_block(self.state, BlockEnd(block, proposer, compute_fake_id(self.height - 1)))
        self.commit()
        return proposer


def compute_fake_id(height: int) -> Hash:
    """What stands for the id of a block."""
    return sha256(b"block %d" % height)


class Ground(RuleBasedStateMachine):
    """The world and its model, side by side."""

    done: ClassVar[Counter[str]] = Counter()  # transactions that applied, of all examples
    refused: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.world = BlockWorld(PARAMETERS)
        self.world.time_ms = START_MS
        self.model = Model(
            now_ms=START_MS,
            zone_pairs=frozenset(PARAMETERS.zone_pairs),
            lifetime_ms=PARAMETERS.lot_lifetime_s * 1_000,
            dispute_ms=PARAMETERS.dispute_deadline_s * 1_000,
            silence_ms=PARAMETERS.escrow_silence_s * 1_000,
            limits={UTILITY.address: CREDIT_LIMIT_CENTS},
        )
        self.model.set_validators([one.public_key for one in VALIDATORS], from_height=0)
        for person, roles in ROLES.items():
            self.model.found(person.address, person.public_key, roles)
        self.people: dict[bytes, Person] = {
            one.address: one for one in (*ROLES, *NEWCOMERS, STRANGER, *VALIDATORS, *CANDIDATES)
        }
        self.meter_seeds: dict[bytes, bytes] = {}  # key → what signs for it
        self.count = 0

    def expect(
        self, payload: Payload, reasons: Reasons, *, by: bytes, cosigners: Sequence[bytes] = ()
    ) -> Applied | None:
        """The ledger refuses for one of the reasons or, if there is none, applies."""
        tag = payload.declaration.tag
        applied, refusal = None, None
        try:
            signers = [self.people[one] for one in cosigners]
            applied = self.world.apply(payload, by=self.people[by], cosigners=signers)
        except Rejected as error:
            refusal = error
        if refusal is None:
            assert not reasons, f"{tag} applied, the model refuses it: {reasons}"
            self.done[tag] += 1
            self.model.end_block(self.world.end_block())
        else:
            assert refusal.reason in reasons, f"{tag}: {refusal}, the model has {reasons or 'nothing against it'}"
            self.refused[refusal.reason] += 1
        self.pass_time(1_000)
        return applied

    def pass_time(self, step_ms: int) -> None:
        self.world.time_ms += step_ms
        self.model.now_ms = self.world.time_ms

    def next_text(self) -> str:
        """Another text each time, for references."""
        self.count += 1
        return f"{self.count}"

    def someone(self, number: int) -> Address:
        """Anyone, now and then a stranger."""
        return pick([*map(Address, self.model.members), STRANGER.address], number)

    def rightly(self, right: bytes, odd: int, number: int = 0) -> Address:
        """Who should sign or, when things go wrong, anyone."""
        return Address(right) if odd < WRONG else self.someone(odd + number)

    def rotate(self, address: bytes, new: Person) -> None:
        self.people[address] = replace(new, address=Address(address))

    def add_site(
        self, owner: bytes, technology: Technology, zone: str, capacity_w: int, *, by: bytes, cosigners: Sequence[bytes]
    ) -> Site | None:
        payload = RegisterSite(Address(owner), technology, zone, capacity_w, "a site", DAY_0_MS)
        looks = Looks(zone, capacity_w, "a site", None, EFFICIENCY)
        reasons = self.model.register_site(by, cosigners, owner, technology.value, looks=looks, since_ms=DAY_0_MS)
        applied = self.expect(payload, reasons, by=by, cosigners=cosigners)
        if applied is None:
            return None
        self.model.sites[-1].id = applied.make_id("site")
        return self.model.sites[-1]

    def make_key(self, name: str) -> MeterKey:
        seed = sha256(b"meter " + name.encode())
        key = compute_meter_key(seed, "ed25519")
        self.meter_seeds[key] = seed
        return key

    def add_meter(
        self,
        site: Site,
        serial: str,
        channels: Sequence[tuple[Channel, int, int]],
        *,
        by: bytes,
        cosigners: Sequence[bytes],
        key: MeterKey,
        since_ms: int = DAY_0_MS,
    ) -> Meter | None:
        specs = tuple(ChannelSpec(*one) for one in channels)
        payload = RegisterMeter(site.id, serial, key, specs, since_ms)
        meter_id = compute_meter_id(Address(by), serial)
        named = [(channel.value, capacity_w, length_s) for channel, capacity_w, length_s in channels]
        reasons = self.model.register_meter(
            by, cosigners, site, meter_id=meter_id, key=key, channels=named, since_ms=since_ms
        )
        applied = self.expect(payload, reasons, by=by, cosigners=cosigners)
        return None if applied is None else self.model.meters[-1]

    def settle(self) -> None:
        """A roof of Alice in which Carol has a share, a wind wheel in hours, Bob's house, Carol's battery."""
        places = (
            (ALICE, Technology.SOLAR, "DE", [(Channel.PRODUCTION, SMALL_W, 900)]),
            (CAROL, Technology.WIND, "FR", [(Channel.PRODUCTION, SMALL_W // 4, 3_600)]),
            (BOB, Technology.LOAD, "DE", [(Channel.CONSUMPTION, SMALL_W, 900)]),
            (CAROL, Technology.STORAGE, "DE", [(one, SMALL_W, 900) for one in Channel]),
        )
        by = UTILITY.address
        for number, (owner, technology, zone, channels) in enumerate(places):
            cosigners = [owner.address]
            site = self.add_site(owner.address, technology, zone, SMALL_W, by=by, cosigners=cosigners)
            assert site is not None
            key = self.make_key(f"first {number}")
            assert self.add_meter(site, f"M-{number}", channels, by=by, cosigners=cosigners, key=key) is not None
        shares = ((ALICE.address, 2), (CAROL.address, 1))
        self.share(self.model.sites[0], shares, by=by, cosigners=[ALICE.address])
        for person in (ALICE, BOB, CAROL):
            reasons = self.model.issue(by, person.address, CREDIT_CENTS, person.name)
            self.expect(IssueCredits(person.address, CREDIT_CENTS, person.name), reasons, by=by)
        self.hand_in_papers()

    def hand_in_papers(self) -> None:
        """Bob hands in a paper that the utility can read, so that it can decide on him."""
        for name, person in (("0", UTILITY), ("1", BOB)):
            key = make_x25519(name)
            reasons = self.model.set_encryption_key(person.address, key)
            self.expect(SetEncryptionKey(key), reasons, by=person.address)
        grants = (WrappedKey(UTILITY.address, make_x25519("0"), bytes(80)),)
        paper = replace(make_paper("first", subject=BOB), grants=grants)
        applied = self.expect(paper, self.model.anchor(BOB.address, paper, None), by=BOB.address)
        assert applied is not None
        self.model.documents[-1].id = applied.one(DocumentAnchored).document

    def share(
        self, site: Site, shares: tuple[tuple[Address, int], ...], *, by: bytes, cosigners: Sequence[bytes]
    ) -> None:
        reasons = self.model.set_shares(by, cosigners, site, shares)
        self.expect(SetShares(site.id, shares), reasons, by=by, cosigners=cosigners)

    @invariant()
    def the_ledger_says_what_the_model_says(self) -> None:
        check_same(self.world.state, self.model)
        check_credits_conserved(self.world.state)
