"""``wattprint certificate``: proofs of provenance as files that anybody can check without a node.

Owns the commands that write, check and print such a file. Only ``issue`` asks a node; what it answers is checked for
its form, and with --genesis for its truth, before it is written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final, cast

import click

from ledger.errors import Malformed
from ledger.fields import Json, get_codec
from ledger.genesis import GenesisDocument, read_genesis
from ledger.primitives import Address, format_address
from node.certificates.format import CERTIFICATE_BYTES_MAX, read_certificate, read_text, write_text
from node.certificates.printable import format_energy, format_time, make_page
from node.certificates.verify import Verified, verify_certificate
from node.cli.options import FILE, Common, Connected, with_common, with_node
from node.cli.output import note, show
from node.cli.values import FieldType, read_json_file
from node.client import Answer
from node.files import write_replacing
from node.statements import format_count

_MOMENT: Final = FieldType("from_ms", {"type": "integer"}, None)
_ADDRESS: Final = FieldType("holder", get_codec(Address).schema, get_codec(Address))
_OUTPUT: Final = click.Path(dir_okay=False, path_type=Path)
FILE_MODE: Final = 0o644


@click.group()
def command() -> None:
    """Prove to anybody where energy came from and who used it, without a node.

    \b
    Example:
      wattprint certificate issue 5f0c… -o heat-2016.json
      wattprint certificate verify heat-2016.json --genesis genesis.json
      wattprint certificate print heat-2016.json --genesis genesis.json -o heat-2016.html
    """


@command.command()
@click.argument("claim", required=False)
@click.option("--holder", type=_ADDRESS, help="Instead of a claim: what this participant has, still unused.")
@click.option("--from", "from_ms", type=_MOMENT, metavar="TIME", help="With --holder: produced from.")
@click.option("--until", "until_ms", type=_MOMENT, metavar="TIME", help="With --holder: produced before.")
@click.option("--genesis", type=FILE, help="Verify it before writing, with this genesis file.")
@click.option("-o", "--output", type=_OUTPUT, required=True, help="The file to write.")
@with_node
def issue(
    connected: Connected,
    *,
    claim: str | None,
    holder: str | None,
    from_ms: int | None,
    until_ms: int | None,
    genesis: Path | None,
    output: Path,
) -> None:
    """Write the certificate of a CLAIM, as of the node's last block, into one file."""
    if (claim is None) == (holder is None):
        raise click.UsageError("Name a claim, or --holder.")
    answer: Answer = connected.run(
        lambda client: client.certificate_get(claim=claim, holder=holder, from_ms=from_ms, until_ms=until_ms)
    )
    data = cast(Json, answer)
    certificate = read_certificate(data)
    if genesis is not None:
        verify_certificate(data, _read_genesis(genesis))
    raw = write_text(data)
    write_replacing(output, raw, mode=FILE_MODE)
    document: dict[str, Json] = {
        "id": certificate.id.hex(),
        "file": str(output),
        "bytes": len(raw),
        "height": certificate.header.height,
        "is_verified": genesis is not None,
    }
    show(connected, document, f"wrote {output}: certificate {certificate.id.hex()}, {len(raw)} bytes")


@command.command()
@click.argument("file", type=FILE)
@click.option("--genesis", type=FILE, required=True, help="The genesis file of the chain: all that is trusted.")
@with_common
def verify(common: Common, *, file: Path, genesis: Path) -> None:
    """Check a certificate with nothing but the genesis file: no node, no network, no database.

    Exit status 0: it is true. 1: it is refused, the reason is on stderr.
    """
    verified = _verify(file, genesis)
    show(common, describe(verified), _format(verified))


@command.command(name="print")
@click.argument("file", type=FILE)
@click.option("--genesis", type=FILE, required=True, help="The genesis file of the chain.")
@click.option("-o", "--output", type=_OUTPUT, required=True, help="The HTML file to write.")
@with_common
def print_page(common: Common, *, file: Path, genesis: Path, output: Path) -> None:
    """Verify a certificate and write it as one page of A4, for a wall."""
    verified = _verify(file, genesis)
    write_replacing(output, make_page(verified).encode(), mode=FILE_MODE)
    note(common, f"wrote {output}; a browser prints it, or saves it as PDF")
    show(common, {**describe(verified), "file": str(output)}, str(output))


def describe(verified: Verified) -> dict[str, Json]:
    """What is true, as `certificate verify --json` prints it."""
    certificate = verified.certificate
    claim, holding = certificate.claim, certificate.holding
    subject: dict[str, Json] = {}
    if claim is not None:
        subject = {
            "claim": claim.claim.hex(),
            "claimant": format_address(claim.record.claimant),
            "beneficiary": format_address(claim.record.beneficiary),
            "statement": claim.record.statement,
            "is_hourly": claim.record.is_hourly,
        }
    if holding is not None:
        subject = {"holder": format_address(holding.holder)}
    return {
        "verified": True,
        "id": certificate.id.hex(),
        **subject,
        "wh": verified.wh,
        "lots": len({ref.lot for ref in verified.refs}),
        "meters": len({ref.lot.meter for ref in verified.refs}),
        "from_ms": min(ref.lot.start_ms for ref in verified.refs),
        "until_ms": max(verified.lots[ref.lot].end_ms for ref in verified.refs),
        "chain_id": certificate.header.chain_id,
        "height": certificate.header.height,
        "block_time_ms": certificate.header.time_ms,
        "signatures": len(certificate.commit.signatures),
        "validators": verified.validators_count,
    }


def _format(verified: Verified) -> str:
    said = describe(verified)
    certificate = verified.certificate
    labels = {format_address(one.address): one.record.label for one in certificate.participants}
    who = str(said.get("beneficiary") or said.get("holder"))
    how = "held by" if certificate.claim is None else "claimed hourly for" if said["is_hourly"] else "claimed for"
    start, end = (format_time(int(str(said[name]))) for name in ("from_ms", "until_ms"))
    lots, meters = (format_count(int(str(said[name])), name.removesuffix("s")) for name in ("lots", "meters"))
    return "\n".join(
        [
            f"true: {format_energy(verified.wh)} {how} {labels[who]} ({who})",
            f"produced {start} – {end} UTC, {lots} of {meters}",
            f"as of height {said['height']} of {said['chain_id']}, {format_time(certificate.header.time_ms)} UTC, "
            f"signed by {said['signatures']} of {said['validators']} validators",
            f"certificate {said['id']}",
        ]
    )


def _verify(file: Path, genesis: Path) -> Verified:
    with file.open("rb") as stream:
        raw = stream.read(CERTIFICATE_BYTES_MAX + 1)
    return verify_certificate(read_text(raw), _read_genesis(genesis))


def _read_genesis(path: Path) -> GenesisDocument:
    try:
        return read_genesis(read_json_file(str(path)))
    except (Malformed, json.JSONDecodeError) as error:
        raise click.UsageError(f"{path} is no genesis file: {error}") from None
