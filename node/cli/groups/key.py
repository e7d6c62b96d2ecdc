"""``wattprint key``: key files of participants, validators and meters.

Owns the commands only; the files are node/keystore.py's. No command ever prints a secret.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, cast

import click

from ledger.fields import Json
from ledger.primitives import format_address
from node.cli.options import FILE, UNLOCK_VARIABLE, Common, ask_passphrase, find_passphrase, with_common
from node.cli.output import note, show, show_rows
from node.keystore import (
    KEY_FILE_SUFFIX,
    KeyFile,
    MeterSigningKey,
    Scheme,
    SigningKey,
    change_passphrase,
    list_keys,
    read_key_file,
    save_key,
    save_key_unencrypted,
)

NEW_UNLOCK_VARIABLE: Final = "WATTPRINT_NEW_PASSPHRASE"


@click.group()
def command() -> None:
    """Make and look after key files.

    \b
    Example:
      wattprint key new alice.key.json
      wattprint key new meter-7.key.json --scheme p256
      wattprint key show alice.key.json
    """


@command.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--scheme",
    type=click.Choice(["ed25519", "p256"]),
    default="ed25519",
    show_default=True,
    help="Participants and validators need ed25519; a meter may have either.",
)
@click.option("--unencrypted", is_flag=True, help="No passphrase: for a test network that is thrown away.")
@with_common
def new(common: Common, *, file: Path, scheme: Scheme, unencrypted: bool) -> None:
    """Make a new key and write it to FILE (name.key.json), which must not exist yet.

    The passphrase comes from WATTPRINT_PASSPHRASE, or is asked for.
    """
    key = SigningKey.generate() if scheme == "ed25519" else MeterSigningKey.generate(scheme)
    if not file.name.endswith(KEY_FILE_SUFFIX):
        note(common, f"{file.name} does not end in {KEY_FILE_SUFFIX}: `key list` will not show it")
    if unencrypted:
        save_key_unencrypted(file, key)
    else:
        known = os.environ.get(UNLOCK_VARIABLE)
        save_key(file, key, known if known is not None else ask_passphrase(f"New passphrase of {file}", confirm=True))
    show(common, describe_key(read_key_file(file)))


@command.command(name="show")
@click.argument("file", type=FILE)
@with_common
def show_key(common: Common, *, file: Path) -> None:
    """The address and the public key in a key file; it stays locked."""
    show(common, describe_key(read_key_file(file)))


@command.command(name="list")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path), default=".")
@with_common
def list_(common: Common, *, directory: Path) -> None:
    """The key files (*.key.json) of a directory."""
    rows = [describe_key(file) for file in list_keys(directory)]
    show_rows(common, {"keys": cast("list[Json]", rows)}, rows)


@command.command(name="change-passphrase")
@click.argument("file", type=FILE)
@with_common
def change(common: Common, *, file: Path) -> None:
    """Encrypt a key file under a new passphrase.

    The old one comes from WATTPRINT_PASSPHRASE, the new one from WATTPRINT_NEW_PASSPHRASE; or both are asked for.
    """
    old = find_passphrase(file)
    known = os.environ.get(NEW_UNLOCK_VARIABLE)
    new_one = known if known is not None else ask_passphrase(f"New passphrase of {file}", confirm=True)
    change_passphrase(file, old=old, new=new_one)
    show(common, describe_key(read_key_file(file)))


def describe_key(file: KeyFile) -> dict[str, Json]:
    """The public half of a key file."""
    return {
        "file": str(file.path),
        "address": None if file.address is None else format_address(file.address),
        "public_key": file.public_key.hex(),
        "scheme": file.scheme,
        "encrypted": file.is_encrypted,
        "warning": file.warning or None,
    }
