"""``wattprint participant``: who may sign, with what key.

Owns the registration, for which the new participant proves that it holds its key; the rest derives.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import click

from contracts_native.participants import RegisterParticipant, Role, make_possession_message
from ledger.fields import Json, from_json, get_codec
from ledger.primitives import Address, PublicKey, Signature, parse_address
from node.cli.derive import submit
from node.cli.options import FILE, Connected, Signing, load_key, with_key, with_node
from node.cli.output import show
from node.cli.values import FieldType
from node.client import Client

_roles = click.Choice([role.value for role in Role])


@click.group()
def command() -> None:
    """Participants: persons and organisations with a key and roles.

    \b
    Example:
      wattprint key new alice.key.json
      wattprint participant register --new-key alice.key.json --label Alice --role consumer \\
          --key utility.key.json
      wattprint participant show alice.key.json
    """


@command.command()
@click.option("--new-key", type=FILE, metavar="FILE", help="The new participant's key file, if it is here.")
@click.option("--public-key", metavar="HEX", help="Its public key, if its key is elsewhere; with --possession.")
@click.option("--possession", metavar="HEX", help="What `participant prove-possession` printed there.")
@click.option("--label", default="", help="A name for people.")
@click.option("--role", "roles", type=_roles, multiple=True, required=True, help="What it may do; repeatable.")
@with_key
def register(
    signing: Signing,
    *,
    new_key: Path | None,
    public_key: str | None,
    possession: str | None,
    label: str,
    roles: tuple[str, ...],
) -> None:
    """Register a participant; signed by an admin, or by a utility for its customers.

    The new participant signs that it holds its key: here, with --new-key, or beforehand elsewhere.
    """
    registrar = signing.load_key().address
    if new_key is not None and public_key is None and possession is None:
        chain_id = signing.run(_get_chain_id)
        proof = prove_possession(new_key, chain_id, registrar)
    elif new_key is None and public_key is not None and possession is not None:
        proof = {"public_key": public_key, "possession": possession}
    else:
        raise click.UsageError("Give --new-key, or both --public-key and --possession.")
    data: dict[str, Json] = {**proof, "roles": list(roles), "label": label}
    submit(signing, from_json(RegisterParticipant, data))


@command.command(name="prove-possession")
@click.argument("new_key", type=FILE)
@click.option(
    "--registrar",
    type=FieldType("registrar", get_codec(Address).schema, get_codec(Address)),
    required=True,
    help="Who will register the key: an address, or a key file.",
)
@click.option("--chain-id", help="The chain it is for.  [default: the node's]")
@with_node
def prove(connected: Connected, *, new_key: Path, registrar: str, chain_id: str | None) -> None:
    """Sign that the key in NEW_KEY is held, for whoever will register it. Nothing is submitted."""
    known = chain_id or connected.run(_get_chain_id)
    proof = prove_possession(new_key, known, parse_address(registrar))
    show(connected, {"chain_id": known, "registrar": registrar, **proof})


def prove_possession(new_key: Path, chain_id: str, registrar: Address) -> dict[str, Json]:
    """The public key in a file, its address and its signature of the proof, as the command prints them."""
    key = load_key(new_key)
    signature: Signature = key.sign(make_possession_message(chain_id, registrar, PublicKey(key.public_key)))
    return {"public_key": key.public_key.hex(), "possession": signature.hex()}


async def _get_chain_id(client: Client) -> str:
    answer: dict[str, Any] = await client.chain_status()
    return cast(str, answer["chain_id"])
