"""A chain whose blocks are final for good reason: four validators sign each, so that certificates can be made of it.

Owns the market that the tests of certificates look at: two producers whose meters sign by different schemes, a claim
matched by the hour, one that is not, a corrected interval, a battery, and what is still held.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final, cast

from consensus.codec import encode_message
from consensus.messages import ChainContext, CommitCertificate, CommitSignature, Precommit, compute_signed_bytes
from consensus.validators import Validator, ValidatorSet
from contracts_native.claims import ClaimEnergy
from contracts_native.corrections import CorrectReading
from contracts_native.lots import LotId, SliceRef, TransferEnergy
from contracts_native.meters import Channel
from contracts_native.readings import Flag
from contracts_native.sites import Technology
from contracts_native.storage import ChargeStorage
from contracts_native.table import load_table
from ledger.block import Header, compute_block_id
from ledger.fields import Json
from ledger.genesis import GenesisDocument, GenesisValidator, compute_genesis_hash
from ledger.parameters import Parameters
from ledger.primitives import Hash, Height
from ledger.state import State
from ledger.storage import CERTIFICATES, MemoryStore, format_height
from ledger.transaction import Transaction
from node.certificates.format import CommitPart, SignaturePart, compute_id
from node.chain_store import compute_genesis_batch, get_header, load_tree
from node.queries.view import JsonObject
from tests.contracts_native.harness import (
    ALICE,
    BOB,
    CAROL,
    DAY_0_MS,
    DAY_MS,
    MEASURER,
    NOW_MS,
    Applied,
    Person,
    make_genesis,
    make_person,
)
from tests.node.query_chain import QueryChain

VALIDATORS: Final = tuple(make_person(f"validator {number}") for number in range(4))
Path = tuple[str | int, ...]


def make_document(validators: Iterable[Person] = VALIDATORS) -> GenesisDocument:
    """The genesis of the harness with these validators."""
    members = tuple(GenesisValidator(one.public_key, one.name) for one in validators)
    return replace(make_genesis(Parameters()), validators=members)


def make_context(document: GenesisDocument) -> ChainContext:
    return ChainContext(document.chain_id, compute_genesis_hash(document))


def make_set(validators: Iterable[Person]) -> ValidatorSet:
    return ValidatorSet(tuple(Validator(one.public_key, one.name) for one in validators))


def sign_block(
    height: int, block_id: Hash, *, by: Iterable[Person], document: GenesisDocument, round_: int = 0
) -> tuple[CommitSignature, ...]:
    """Precommits of these validators."""
    message = compute_signed_bytes(make_context(document), Precommit(Height(height), round_, block_id))
    return tuple(CommitSignature(one.public_key, one.sign(message)) for one in by)


def make_commit(header: Header, *, by: Iterable[Person], document: GenesisDocument) -> CommitPart:
    """A header's commit as a certificate has it."""
    signatures = sign_block(header.height, compute_block_id(header), by=by, document=document)
    parts = sorted((SignaturePart(one.voter, one.signature) for one in signatures), key=lambda part: part.voter)
    return CommitPart(0, tuple(parts))


class CertifiedChain(QueryChain):
    """``QueryChain`` with a commit certificate of four validators on every block."""

    def __init__(self, document: GenesisDocument | None = None) -> None:
        self.document = document or make_document()
        self.table = load_table()
        self.time_ms = NOW_MS
        self.height = 0
        self.store = MemoryStore()
        self.store.write(compute_genesis_batch(self.document, self.table))
        self.state = State(self.store)
        self.tree = load_tree(self.store)
        self._salt = 0
        self._serial = 0

    def commit_block(self, transactions: Sequence[Transaction]) -> list[Applied]:
        applied = super().commit_block(transactions)
        block_id = compute_block_id(get_header(self.store, self.height))
        signatures = sign_block(self.height, block_id, by=VALIDATORS, document=self.document)
        chain_hash = make_context(self.document).compute_hash()
        certificate = CommitCertificate(chain_hash, Height(self.height), 0, block_id, signatures)
        self.store.write({CERTIFICATES + format_height(self.height): encode_message(certificate)})
        return applied


@dataclass(frozen=True)
class Market:
    """What happened on the chain: the ids of claims by what is special about them."""

    chain: CertifiedChain
    hourly: bytes
    volumetric: bytes
    corrected: bytes
    stored: bytes
    charge: bytes
    lots: tuple[LotId, ...]


@cache
def make_market() -> Market:
    """The same market each time; nobody changes it."""
    chain = CertifiedChain()
    roof = chain.add_producer(ALICE)
    site = chain.register_site(CAROL, technology=Technology.WIND)
    mast = chain.register_meter(CAROL, site, channels=[Channel.PRODUCTION], scheme="p256")
    home = chain.add_consumer(BOB)
    battery_site = chain.register_site(BOB, technology=Technology.STORAGE)
    battery = chain.register_meter(BOB, battery_site)
    sun = chain.produce(roof, 500, 600, 0, 700, 80, 90, 100)
    wind = chain.produce(mast, 300, 310, 320, 330)
    chain.consume(home, 900, 900, 900, 900)
    chain.consume(battery, 0, 0, 0, 400)
    give(chain, ALICE, *(SliceRef(lot, 0, 400) for lot in (sun[0], sun[1], sun[3])))
    give(chain, CAROL, SliceRef(wind[0], 10, 300), SliceRef(wind[1], 0, 310))
    hourly = claim(chain, "hourly", SliceRef(sun[0], 0, 300), SliceRef(wind[1], 5, 255), meter=home.meter_id)
    volumetric = claim(chain, "volumetric", SliceRef(sun[1], 100, 200), SliceRef(wind[0], 10, 60))
    correction = CorrectReading(
        roof.meter_id, Channel.PRODUCTION, sun[4].start_ms, (85,), Flag.MEASURED, "read off wrongly"
    )
    chain.apply(correction, by=MEASURER)
    again = replace(sun[4], version=2)
    give(chain, ALICE, SliceRef(again, 0, 50))
    corrected = claim(chain, "corrected", SliceRef(again, 10, 40))
    charged = chain.apply(ChargeStorage(battery.meter_id, (SliceRef(sun[3], 0, 400),), "charge 1"), by=BOB)
    (_, out) = chain.produce(battery, 200, 250, start_ms=sun[3].start_ms + battery.interval_ms)
    stored = claim(chain, "stored", SliceRef(out, 0, 60))
    return Market(chain, hourly, volumetric, corrected, stored, charged.make_id("claim"), (*sun, *wind, again, out))


def give(chain: CertifiedChain, holder: Person, *refs: SliceRef) -> None:
    """Bob gets these."""
    chain.apply(TransferEnergy(BOB.address, refs, "sale"), by=holder)


def claim(chain: CertifiedChain, statement: str, *refs: SliceRef, meter: bytes | None = None) -> bytes:
    """Bob claims; the claim's id."""
    payload = ClaimEnergy(
        refs, BOB.address, "heat", DAY_0_MS, DAY_0_MS + DAY_MS, statement, consumption_meter=meter, replaces=None
    )
    return chain.apply(payload, by=BOB).make_id("claim")


# — how a file is tampered with —


def seal(data: JsonObject) -> JsonObject:
    """With the id that its content has: what a forger who knows the format would do."""
    return {**data, "id": compute_id(data).hex()}


def list_leaves(value: Json, at: Path = ()) -> Iterator[tuple[Path, Json]]:
    """Every scalar of a document, and every empty list or object, with the way to it."""
    if isinstance(value, dict) and value:
        for name, part in value.items():
            yield from list_leaves(part, (*at, name))
    elif isinstance(value, list) and value:
        for index, part in enumerate(value):
            yield from list_leaves(part, (*at, index))
    else:
        yield at, value


def list_arrays(value: Json, at: Path = ()) -> Iterator[tuple[Path, list[Json]]]:
    """Every list of a document with the way to it."""
    if isinstance(value, list):
        yield at, value
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield from list_arrays(part, (*at, name))


def list_objects(value: Json, at: Path = ()) -> Iterator[tuple[Path, dict[str, Json]]]:
    """Every object of a document with the way to it."""
    if isinstance(value, dict):
        yield at, value
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        yield from list_objects(part, (*at, name))


def change(data: JsonObject, at: Path, new: Json) -> JsonObject:
    """The document with another value in one place."""
    return cast(JsonObject, _change(data, at, new))


def _change(value: Json, at: Path, new: Json) -> Json:
    if not at:
        return new
    changed = copy.copy(value)
    if isinstance(changed, dict):
        changed[str(at[0])] = _change(changed[str(at[0])], at[1:], new)
    elif isinstance(changed, list):
        changed[int(at[0])] = _change(changed[int(at[0])], at[1:], new)
    return changed
