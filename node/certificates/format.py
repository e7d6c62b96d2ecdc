"""What a certificate of provenance is made of: the fields of its JSON, version 1, and how a file is read.

Owns the form only. Every record stands in it as the ledger stores it, field by field, so that whoever checks it can
hash the very bytes that the state root covers. docs/certificates.md says the same for people.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Final

from consensus.codec import HEIGHT_MAX, ROUND_MAX, VALIDATORS_MAX
from contracts_native.batteries import LotSources
from contracts_native.claims import Claim, ClaimId
from contracts_native.lots import SLICES_PER_TRANSACTION_MAX, LotId, LotSlices, Mint, Reissue, SliceRefs
from contracts_native.meters import Meter, MeterId
from contracts_native.participants import Participant
from contracts_native.readings import Correction, ReportRecord
from contracts_native.sites import Site, SiteId
from ledger.block import Header
from ledger.errors import Malformed
from ledger.fields import Bounds, Json, Length, Shown, from_json, to_json
from ledger.genesis import GenesisValidator
from ledger.parameters import Parameters
from ledger.primitives import HASH_BYTES, Address, Hash, MeterKey, PublicKey, Signature, sha256
from ledger.state_root import BUCKET_ENTRIES_MAX, CHILDREN, ENTRY_BYTES

FORMAT: Final = "wattprint-certificate"
VERSION: Final = 1
ID_TAG: Final = b"wattprint/certificate/1\0"
CERTIFICATE_BYTES_MAX: Final = 32 * 1024 * 1024  # a claim of a thousand lots is about 4 MB
LOTS_MAX: Final = 4 * SLICES_PER_TRANSACTION_MAX  # of a subject, and of the charges behind what left a storage
PARTICIPANTS_MAX: Final = 1_000
VALIDATOR_CHANGES_MAX: Final = 1_000
STATE_PARTS_MAX: Final = 65_536

Height = Annotated[int, Bounds(1, HEIGHT_MAX)]
NodeBytes = Annotated[bytes, Length(2 + CHILDREN * HASH_BYTES, 2 + HASH_BYTES)]
BucketBytes = Annotated[bytes, Length(BUCKET_ENTRIES_MAX * ENTRY_BYTES, ENTRY_BYTES)]


@dataclass(frozen=True, slots=True)
class ChainPart:
    """Which chain it is from: the genesis file at hand must be this one."""

    chain_id: str
    genesis_hash: Hash


@dataclass(frozen=True, slots=True)
class ClaimPart:
    """A claim: the one that is certified, or the charge of a storage."""

    claim: ClaimId
    record: Claim


@dataclass(frozen=True, slots=True)
class HoldingPart:
    """The holding that is certified: whole slices, in order."""

    holder: Address
    slices: SliceRefs


@dataclass(frozen=True, slots=True)
class ParticipantPart:
    """Somebody whom the subject names, or who corrected a reading."""

    address: Address
    record: Participant


@dataclass(frozen=True, slots=True)
class SitePart:
    """The site of a meter."""

    site: SiteId
    record: Site


@dataclass(frozen=True, slots=True)
class MeterPart:
    """A meter that measured what the subject is made of, or the consumption that it is matched with."""

    meter: MeterId
    record: Meter


@dataclass(frozen=True, slots=True)
class ReportPart:
    """What a meter signed: the report as the ledger took it, the meter's signature, and what was minted for it.

    ``mint`` is null when none of the subject's lots was minted by the report itself, only by its correction.
    """

    meter: MeterId
    key: MeterKey
    signature: Signature
    record: ReportRecord
    mint: Mint | None


@dataclass(frozen=True, slots=True)
class LotPart:
    """A lot that the subject, or a charge, has a part of. ``slices`` null: nobody ever touched it.

    ``reissue`` and ``correction``: from version 2 on. ``sources``: the charges behind a lot that left a storage.
    """

    lot: LotId
    slices: LotSlices | None
    reissue: Reissue | None
    correction: Correction | None
    sources: LotSources | None


@dataclass(frozen=True, slots=True)
class StatePart:
    """The part of the state trie that leads from the root to every record: each node and bucket once, sorted."""

    nodes: Annotated[tuple[NodeBytes, ...], Length(STATE_PARTS_MAX)]
    buckets: Annotated[tuple[BucketBytes, ...], Length(STATE_PARTS_MAX)]


@dataclass(frozen=True, slots=True)
class SignaturePart:
    """One validator's precommit."""

    voter: PublicKey
    signature: Signature


@dataclass(frozen=True, slots=True)
class CommitPart:
    """Why a header is final: precommits for it, of one round, sorted by key."""

    round: Annotated[int, Bounds(0, ROUND_MAX)]
    signatures: Annotated[tuple[SignaturePart, ...], Length(VALIDATORS_MAX)]


@dataclass(frozen=True, slots=True)
class ValidatorChange:
    """A final header that announces other validators than its own, and who they are."""

    header: Header
    commit: CommitPart
    next_validators: Annotated[tuple[GenesisValidator, ...], Length(VALIDATORS_MAX, 1)]


@dataclass(frozen=True, slots=True)
class Certificate:
    """The whole file. Exactly one of ``claim`` and ``holding`` is not null; ``parameters`` only with a holding."""

    format: str
    version: int
    id: Hash
    chain: ChainPart
    claim: ClaimPart | None
    holding: HoldingPart | None
    parameters: Parameters | None
    participants: Annotated[tuple[ParticipantPart, ...], Length(PARTICIPANTS_MAX)]
    sites: Annotated[tuple[SitePart, ...], Length(LOTS_MAX + 1)]
    meters: Annotated[tuple[MeterPart, ...], Length(LOTS_MAX + 1)]
    reports: Annotated[tuple[ReportPart, ...], Length(LOTS_MAX)]
    lots: Annotated[tuple[LotPart, ...], Length(LOTS_MAX, 1)]
    charges: Annotated[tuple[ClaimPart, ...], Length(LOTS_MAX)]
    state: StatePart
    header: Header
    commit: CommitPart
    validator_changes: Annotated[tuple[ValidatorChange, ...], Length(VALIDATOR_CHANGES_MAX)]


def read_text(raw: bytes) -> Json:
    """The JSON of a file. Raises ``Malformed`` (``certificate_too_large``, ``certificate_not_json``).

    Stricter than JSON: a name stands once in an object, and there are no fractions.
    """
    if len(raw) > CERTIFICATE_BYTES_MAX:
        raise Malformed("certificate_too_large", f"{len(raw)} bytes, at most {CERTIFICATE_BYTES_MAX}")
    try:
        data: Json = json.loads(
            raw.decode(),
            object_pairs_hook=_read_object,
            parse_float=_refuse_number,
            parse_constant=_refuse_number,
        )
    except (ValueError, RecursionError) as error:
        raise Malformed("certificate_not_json", str(error)[:100]) from error
    return data


def read_certificate(data: Json) -> Certificate:
    """The certificate of its JSON; whether it is true is another question. Raises ``Malformed``."""
    if type(data) is not dict or data.get("format") != FORMAT:
        raise Malformed("certificate_not_recognised", f"the field format is not {FORMAT}")
    if type(data.get("version")) is not int or data["version"] != VERSION:
        raise Malformed("certificate_version_unknown", f"only {VERSION} is known")
    certificate = from_json(Certificate, data)
    if to_json(certificate) != data:  # a null field was left out
        raise Malformed("certificate_not_in_full_form")
    _check_order(certificate)
    return certificate


def write_certificate(certificate: Certificate) -> Shown[Certificate]:
    """The JSON of a certificate."""
    return to_json(certificate)


def write_text(data: Json) -> bytes:
    """The bytes of a file: one line for each field, so that a person can leaf through it."""
    assert isinstance(data, dict)
    lines = [f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in data.items()]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def compute_id(data: Json) -> Hash:
    """What names a certificate: the hash of all its fields but the id, in the one form that JSON can have.

    Names sorted, no blanks, UTF-8 (for what occurs here, the form of RFC 8785).
    """
    assert isinstance(data, dict)
    content = {name: value for name, value in data.items() if name != "id"}
    return sha256(ID_TAG + json.dumps(content, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode())


def _check_order(certificate: Certificate) -> None:
    """Every list is sorted, so that there is one way to write a certificate. Raises ``Malformed``."""
    _check_rising("participants", [one.address for one in certificate.participants])
    _check_rising("sites", [one.site for one in certificate.sites])
    _check_rising("meters", [one.meter for one in certificate.meters])
    _check_rising("reports", [(one.meter, one.record.start_ms) for one in certificate.reports])
    _check_rising("lots", [(one.lot.meter, one.lot.start_ms, one.lot.version) for one in certificate.lots])
    _check_rising("charges", [one.claim for one in certificate.charges])
    _check_rising("nodes", certificate.state.nodes)
    _check_rising("buckets", certificate.state.buckets)
    for commit in (certificate.commit, *(one.commit for one in certificate.validator_changes)):
        voters = [one.voter for one in commit.signatures]
        if sorted(voters) != voters:  # one that stands twice is told by the check of the commit
            raise Malformed("certificate_list_not_in_order", "signatures")


def _check_rising(name: str, keys: Sequence[Any]) -> None:
    if any(before >= after for before, after in pairwise(keys)):
        raise Malformed("certificate_list_not_in_order", name)


def _read_object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Malformed("field_named_twice", ascii([name for name, _ in pairs])[:100])
    return found


def _refuse_number(text: str) -> Json:
    raise Malformed("field_has_wrong_type", f"expected an integer, got {text[:40]}")
