"""``wattprint tx``: what became of a transaction, and what its bytes say.

Owns ``wait``, ``decode`` and ``submit``; ``get`` and ``pending`` derive from the node's methods.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click

from contracts_native.table import load_table
from ledger.errors import Malformed, NotAdmitted
from ledger.fields import Json, get_field_types
from ledger.transaction import TRANSACTION_BYTES_MAX, check_signatures, decode_transaction, transaction_to_json
from node.cli.derive import describe_submitted, format_submitted
from node.cli.options import TIMEOUT_MS_DEFAULT, TIMEOUT_MS_MAX, Common, Connected, with_common, with_node
from node.cli.output import show
from node.cli.reads import make_read_command
from node.client import SignedTransaction
from node.protocol_page import make_protocol_page
from node.rpc_methods import METHODS

_timeout = click.option(
    "--timeout-ms", type=click.IntRange(1, TIMEOUT_MS_MAX), default=TIMEOUT_MS_DEFAULT, show_default=True
)


@click.group()
def command() -> None:
    """Follow transactions.

    \b
    Example:
      wattprint tx get 7b455d1f…
      wattprint tx wait 7b455d1f…
      wattprint tx decode envelope.hex
    """


command.add_command(make_read_command(METHODS["tx_get"]), "get")


@command.command()
@click.argument("tx_id")
@_timeout
@with_node
def wait(connected: Connected, *, tx_id: str, timeout_ms: int) -> None:
    """Wait until a transaction is final; exit status 1 if it was dropped or the time is up."""
    answer = connected.run(lambda client: client.wait(tx_id, timeout_ms=timeout_ms))
    show(connected, cast(Json, answer))


@command.command("types")
@click.option("--markdown", is_flag=True, help="The whole page of the protocol, as it stands in docs/protocol.md.")
@with_common
def list_types(common: Common, *, markdown: bool) -> None:
    """List every type of transaction, with who may sign it and its fields. Asks no node."""
    table = load_table()
    if markdown:
        click.echo(make_protocol_page(table), nl=False)
        return
    rows: list[Json] = [
        {
            "type": tag,
            "signed_by": ", ".join(sorted(kind.declaration.roles)) or "anyone registered",
            "fields": ", ".join(get_field_types(kind)),
        }
        for tag, kind in sorted(table.payloads.items())
    ]
    show(common, rows)


@command.command()
@click.argument("transaction", metavar="HEX|FILE|-")
@with_common
def decode(common: Common, *, transaction: str) -> None:
    """Show what a signed envelope says, and whether its signatures verify. Asks no node.

    The envelope comes in hex, or as a file of hex or of bytes.
    """
    tx = decode_transaction(read_envelope(transaction), load_table())
    try:
        check_signatures(tx)
    except NotAdmitted as error:
        note: Json = str(error)
    else:
        note = "valid"
    show(common, {**cast("dict[str, Json]", transaction_to_json(tx)), "signatures_are": note})


@command.command()
@click.argument("transaction", metavar="HEX|FILE|-")
@click.option("--no-wait", is_flag=True, help="Return when the node has taken it, not when it is final.")
@_timeout
@with_node
def submit(connected: Connected, *, transaction: str, no_wait: bool, timeout_ms: int) -> None:
    """Submit an envelope that was signed elsewhere."""
    raw = read_envelope(transaction)
    signed = SignedTransaction(decode_transaction(raw, load_table()).tx_id.hex(), raw)
    wanted = "admitted" if no_wait else "committed"
    submitted = connected.run(lambda client: client.submit_signed(signed, wait=wanted, timeout_ms=timeout_ms))
    document = describe_submitted(submitted)
    show(connected, document, format_submitted(document))


def read_envelope(text: str) -> bytes:
    """The bytes of an envelope from hex, or from a file of hex or bytes. Raises ``Malformed``."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        pass
    if text != "-" and not Path(text).is_file():
        raise Malformed("hex_invalid", f"{text[:80]} is neither hexadecimal nor a file")
    with click.open_file(text, "rb") as stream:
        data: bytes = stream.read(2 * TRANSACTION_BYTES_MAX + 2)
    try:
        return bytes.fromhex(data.decode("ascii").strip())
    except ValueError:
        return data
