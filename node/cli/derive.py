"""A command from a payload: its options are the fields, its help the docstring, its signers the declaration.

Owns the derivation, and the one way in which every command submits. A new payload file is a new command; nothing
here knows any of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, cast

import click

from ledger.errors import Malformed
from ledger.fields import Codec, Json, get_codec, get_field_types
from ledger.transaction import Payload
from node.cli.options import JSON_OPTION, NODE_OPTION, SIGNING_OPTIONS, Signing, make_options, take_signing
from node.cli.output import format_value, show
from node.cli.values import TIME, TIME_FORMS, FieldType, Schema, read_json_file
from node.client import Client, Submitted
from node.prose import make_prose

PAYLOAD_OPTION: Final = "json_payload"
SHARED_NAMES: Final = frozenset(
    name.removeprefix("--") for names, _ in (*SIGNING_OPTIONS, JSON_OPTION, NODE_OPTION) for name in names
)


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a payload as the command line sees it."""

    family: str
    name: str
    codec: Codec
    item_schema: Schema | None  # of a field that repeats
    has_default: bool
    default: Json

    @property
    def option(self) -> str:
        """Its option. A meter's ``key`` is --meter-key: --key is whoever signs the transaction."""
        name = self.name.replace("_", "-")
        return f"--{self.family}-{name}" if name in SHARED_NAMES else f"--{name}"


def make_transaction_command(tag: str, kind: type[Payload], *, verb: str = "") -> click.Command:
    """The command that signs and submits one type of transaction; ``verb`` is its name if not the tag's."""
    family = tag.partition(".")[0]
    fields = [_make_field(family, name, get_codec(type_)) for name, type_ in get_field_types(kind).items()]
    roles = " or ".join(sorted(kind.declaration.roles)) or "any participant"

    def run(**options: Any) -> None:
        context = click.get_current_context()
        signing = take_signing(context.obj, options)
        submit(signing, read_payload(kind, fields, options))

    file_option = click.Option(
        ["--json-payload", PAYLOAD_OPTION],
        metavar="FILE|-",
        help="The whole payload as a JSON object, from a file or standard input, in place of its options.",
    )
    text = make_prose(kind.__doc__) or tag
    return click.Command(
        tag,
        callback=run,
        params=[
            *map(_make_option, fields),
            file_option,
            *make_options(*SIGNING_OPTIONS, JSON_OPTION, NODE_OPTION),
        ],
        help=f"{text}\n\nTransaction {tag}; signed by: {roles}.\n\n\b\nExample:\n  {make_example(tag, fields, verb)}",
        short_help=text.partition("\n")[0],
    )


def read_payload(kind: type[Payload], fields: list[Field], options: dict[str, Any]) -> Payload:
    """The payload that options or a JSON file say. Raises ``UsageError`` or ``Malformed``."""
    path = options.pop(PAYLOAD_OPTION)
    given = {name: value for name, value in options.items() if value not in (None, ())}
    if path is not None:
        if given:
            raise click.UsageError(f"Options of the payload and --json-payload exclude each other: {', '.join(given)}")
        return cast(Payload, get_codec(kind).from_json(read_json_file(path)))
    document: dict[str, Json] = {}
    for field in fields:
        value = given.get(field.name)
        if value is None and not field.has_default:
            raise click.UsageError(f"Missing option '{field.option}'.")
        document[field.name] = field.default if value is None else _join(field, value)
    try:
        return cast(Payload, get_codec(kind).from_json(document))
    except Malformed as error:
        raise click.UsageError(str(error)) from error


def submit(signing: Signing, payload: Payload) -> Submitted | None:
    """Sign a payload, submit it and print what became of it; with --simulate only print what it would do."""
    key, cosigners = signing.load_key(), signing.load_cosigners()

    async def simulate(client: Client) -> dict[str, Json]:
        signed = await client.sign(payload, key=key, cosigners=cosigners)
        answer = await client.tx_simulate(signed.raw.hex())
        return {"tx_id": signed.tx_id, "status": "simulated", "events": answer["events"]}

    async def send(client: Client) -> Submitted:
        wait = "committed" if signing.has_to_wait else "admitted"
        return await client.submit(payload, key=key, cosigners=cosigners, wait=wait, timeout_ms=signing.timeout_ms)

    if signing.is_trial:
        document = signing.run(simulate)
        show(signing, document, format_submitted(document))
        return None
    submitted = signing.run(send)
    document = describe_submitted(submitted)
    show(signing, document, format_submitted(document))
    return submitted


def describe_submitted(submitted: Submitted) -> dict[str, Json]:
    """What became of a transaction, as JSON."""
    return {
        "tx_id": submitted.tx_id,
        "status": submitted.status,
        "height": submitted.height,
        "index": submitted.index,
        "events": list(submitted.events),
    }


def format_submitted(document: dict[str, Json]) -> str:
    """What became of a transaction, for a person: its status, and a line for each event."""
    place = f" at height {document['height']}" if document.get("height") is not None else ""
    lines = [f"{document['status']}{place}: {document['tx_id']}"]
    for event in cast("list[dict[str, Json]]", document["events"]):
        rest = "  ".join(f"{name}={format_value(name, value)}" for name, value in event.items() if name != "event")
        lines.append(f"  {event.get('event')}  {rest}")
    return "\n".join(lines)


def make_verb(tag: str) -> str:
    """The name of a transaction's command within its group."""
    return tag.partition(".")[2].replace("_", "-").replace(".", "-")


def make_example(tag: str, fields: list[Field], verb: str = "") -> str:
    """A line that shows how the command is used: its required options."""
    family = tag.partition(".")[0]
    needed = [field for field in fields if not field.has_default]
    words = [f"{field.option} {field.name.split('_')[-1].upper()}" for field in needed]
    return " ".join(["wattprint", family, verb or make_verb(tag), *words, "--key FILE"])


def _make_field(family: str, name: str, codec: Codec) -> Field:
    schema = codec.schema
    items = schema.get("items")
    item_schema = items if schema.get("type") == "array" and isinstance(items, dict) else None
    defaults: tuple[Json, ...] = ([],) if item_schema is not None else (None,)
    if "format" not in schema:
        defaults += ("",)
    for default in defaults:
        try:
            codec.from_json(default)
        except Malformed:
            continue
        return Field(family, name, codec, item_schema, has_default=True, default=default)
    return Field(family, name, codec, item_schema, has_default=False, default=None)


def _make_option(field: Field) -> click.Option:
    is_repeated = field.item_schema is not None
    notes = [] if field.has_default else ["required"]
    if is_repeated:
        notes.append("repeatable")
    # One item cannot be checked by the codec of all; the whole is checked when the payload is made.
    kind = FieldType(field.name, field.item_schema or field.codec.schema, None if is_repeated else field.codec)
    if kind.name == TIME:
        notes.append(TIME_FORMS)
    return click.Option(
        [field.option, field.name],
        type=kind,
        multiple=is_repeated,
        help=f"[{'; '.join(notes)}]" if notes else None,
    )


def _join(field: Field, value: Any) -> Json:
    if field.item_schema is None:
        return cast(Json, value)
    items = list(value)
    # A single JSON array may stand for all items, unless an item is an array itself.
    if len(items) == 1 and isinstance(items[0], list) and field.item_schema.get("type") != "array":
        return cast(Json, items[0])
    return cast(Json, items)
