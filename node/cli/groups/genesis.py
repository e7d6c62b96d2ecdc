"""``wattprint genesis``: write the document that a chain starts from, and look at it.

Owns the commands. A document without validators may be written, since they are added one by one, but no node starts
from it.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

import click

from contracts_native.table import load_table
from ledger.fields import Json, get_codec, to_json
from ledger.genesis import (
    GenesisDocument,
    GenesisParticipant,
    GenesisValidator,
    compute_genesis_changes,
    compute_genesis_hash,
    read_genesis,
)
from ledger.parameters import Parameters
from ledger.primitives import PublicKey, compute_address, format_address
from node.cli.options import FILE, Common, with_common
from node.cli.output import show
from node.cli.values import FieldType, read_json_file, read_moment
from node.files import write_new, write_replacing

_PARAMETERS: Final = cast("dict[str, dict[str, Json]]", get_codec(Parameters).schema["properties"])
_KEY_TYPE: Final = FieldType("public_key", get_codec(PublicKey).schema, get_codec(PublicKey))
_file = click.argument("file", type=FILE)
_key = click.argument("key", type=_KEY_TYPE, metavar="KEYFILE|HEX")


@click.group()
def command() -> None:
    """Write the document that a chain starts from.

    \b
    Example:
      wattprint genesis new genesis.json --chain-id valley-1
      wattprint genesis add-validator genesis.json node-a.key.json --moniker node-a
      wattprint genesis add-participant genesis.json admin.key.json --label admin --role admin
      wattprint genesis show genesis.json
    """


@command.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--chain-id", required=True, help="Names the chain in every signature; 64 characters at most.")
@click.option("--time", "time_text", help="Block time of height 0: ISO 8601 or milliseconds.  [default: now]")
@click.option(
    "--parameter",
    "parameters",
    multiple=True,
    metavar="NAME=VALUE",
    help=f"Set a parameter; repeatable. There are: {', '.join(_PARAMETERS)}.",
)
@with_common
def new(common: Common, *, file: Path, chain_id: str, time_text: str | None, parameters: tuple[str, ...]) -> None:
    """Write a document without validators and participants to FILE, which must not exist yet."""
    if time_text is None:
        time_ms = time.time_ns() // 1_000_000
    else:
        time_ms = int(time_text) if time_text.isdecimal() else read_moment(time_text)
    document = GenesisDocument(chain_id, time_ms, (), (), _read_parameters(parameters))
    _check(document)
    try:
        write_new(file, _format(document), mode=0o644)
    except FileExistsError:
        raise click.UsageError(f"{file} exists already.") from None
    show(common, describe(document), f"wrote {file}; add validators to it")


@command.command(name="add-validator")
@_file
@_key
@click.option("--moniker", required=True, help="A name for people.")
@with_common
def add_validator(common: Common, *, file: Path, key: str, moniker: str) -> None:
    """Add an authority: the key file of its node, or its public key in hex."""
    document = _read(file)
    validator = GenesisValidator(PublicKey(bytes.fromhex(key)), moniker)
    _write(common, file, replace(document, validators=(*document.validators, validator)))


@command.command(name="add-participant")
@_file
@_key
@click.option("--label", required=True, help="A name for people.")
@click.option("--role", "roles", multiple=True, required=True, help="What it may do; repeatable.")
@click.option(
    "--credit-limit-cents",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Above 0 it may issue credits, up to this much outstanding.",
)
@with_common
def add_participant(
    common: Common, *, file: Path, key: str, label: str, roles: tuple[str, ...], credit_limit_cents: int
) -> None:
    """Add a participant that nobody needs to register, e.g. the admin."""
    document = _read(file)
    participant = GenesisParticipant(PublicKey(bytes.fromhex(key)), label, roles, credit_limit_cents)
    _write(common, file, replace(document, participants=(*document.participants, participant)))


@command.command(name="show")
@_file
@with_common
def show_document(common: Common, *, file: Path) -> None:
    """What a document says, and its hash, which names the chain in every vote."""
    show(common, describe(_read(file)))


def describe(document: GenesisDocument) -> dict[str, Json]:
    """A document as `genesis show` prints it: with hash and addresses."""
    shown = cast("dict[str, Json]", to_json(document))
    participants = [
        {"participant": format_address(compute_address(one.public_key)), **cast("dict[str, Json]", to_json(one))}
        for one in document.participants
    ]
    return {"genesis_hash": compute_genesis_hash(document).hex(), **shown, "participants": cast(Json, participants)}


def _read_parameters(items: tuple[str, ...]) -> Parameters:
    values = cast("dict[str, Any]", to_json(Parameters()))
    for item in items:
        name, _, text = item.partition("=")
        if name not in _PARAMETERS:
            raise click.UsageError(f"No parameter {name!r}; there are: {', '.join(_PARAMETERS)}.")
        try:
            values[name] = json.loads(text)
        except (ValueError, RecursionError):
            raise click.UsageError(f"The value of {name} is no JSON: {text!r}.") from None
    return cast(Parameters, get_codec(Parameters).from_json(values))


def _read(file: Path) -> GenesisDocument:
    """A document from a file; unlike a node, this accepts one without validators."""
    data = read_json_file(str(file))
    if isinstance(data, dict) and data.get("validators") == []:
        complete = read_genesis({**data, "validators": [to_json(_PLACEHOLDER)]})
        return replace(complete, validators=())
    return read_genesis(data)


def _write(common: Common, file: Path, document: GenesisDocument) -> None:
    _check(document)
    write_replacing(file, _format(document), mode=0o644)
    counts = f"{len(document.validators)} validators, {len(document.participants)} participants"
    show(common, describe(document), f"{file}: {counts}")


def _check(document: GenesisDocument) -> None:
    """That a node would accept it, but for missing validators. Raises ``Malformed``."""
    whole = document if document.validators else replace(document, validators=(_PLACEHOLDER,))
    read_genesis(to_json(whole))
    compute_genesis_changes(whole, load_table())


def _format(document: GenesisDocument) -> bytes:
    return (json.dumps(to_json(document), indent=2) + "\n").encode()


_PLACEHOLDER: Final = GenesisValidator(PublicKey(bytes(32)), "placeholder")
