"""Which keys of the state a certificate speaks of, with the value that each must have.

Owns the one list that both sides go by: whoever issues proves these keys, whoever verifies asks for these keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from contracts_native.batteries import LOT_SOURCES
from contracts_native.claims import CLAIMS
from contracts_native.lots import MINTS, REISSUES, SLICES
from contracts_native.meters import METER_KEYS, METERS, Channel, KeyHolder
from contracts_native.participants import PARTICIPANTS
from contracts_native.readings import CORRECTIONS, REPORTS
from contracts_native.sites import SITES
from ledger.encoding import encode
from ledger.parameters import PARAMETERS
from ledger.primitives import sha256
from ledger.tables import KeyPart, Table
from node.certificates.format import Certificate, LotPart, ReportPart

V = TypeVar("V")
Entry = tuple[bytes, bytes | None]  # full key, value; None: the key is absent


def list_entries(certificate: Certificate) -> Iterator[Entry]:
    """Every entry of the state that the certificate states."""
    subject = () if certificate.claim is None else (certificate.claim,)
    for claim in (*subject, *certificate.charges):
        yield _make_entry(CLAIMS, claim.claim, value=claim.record)
    if certificate.parameters is not None:
        yield _make_entry(PARAMETERS, value=certificate.parameters)
    for participant in certificate.participants:
        yield _make_entry(PARTICIPANTS, participant.address, value=participant.record)
    for site in certificate.sites:
        yield _make_entry(SITES, site.site, value=site.record)
    for meter in certificate.meters:
        yield _make_entry(METERS, meter.meter, value=meter.record)
    for report in certificate.reports:
        yield from _list_report(report)
    for lot in certificate.lots:
        yield from _list_lot(lot)


def _list_report(part: ReportPart) -> Iterator[Entry]:
    yield _make_entry(METER_KEYS, sha256(part.key), value=KeyHolder(part.meter))
    yield _make_entry(REPORTS, part.meter, Channel.PRODUCTION, part.record.start_ms, value=part.record)
    if part.mint is not None:
        yield _make_entry(MINTS, part.meter, part.record.start_ms, value=part.mint)


def _list_lot(part: LotPart) -> Iterator[Entry]:
    meter, start_ms, version = place = part.lot.meter, part.lot.start_ms, part.lot.version
    yield _make_entry(SLICES, *place, value=part.slices)
    if part.reissue is not None:
        yield _make_entry(REISSUES, *place, value=part.reissue)
    if part.correction is not None:
        yield _make_entry(CORRECTIONS, meter, Channel.PRODUCTION, start_ms, version, value=part.correction)
    if part.sources is not None:
        yield _make_entry(LOT_SOURCES, *place, value=part.sources)


def _make_entry(table: Table[V], *parts: KeyPart, value: V | None) -> Entry:
    return table.key(*parts), None if value is None else encode(table.to_plain(value))
