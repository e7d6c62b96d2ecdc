"""The options that commands share, and what they make of them: the connection, the keys.

Owns --json, --node, --key, --cosign and the way to a passphrase. A command takes one of the three decorators and
receives one object.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import click
from click.core import ParameterSource

from node.client import Client
from node.keystore import (
    KeystoreError,
    MeterSigningKey,
    SigningKey,
    load_meter_key,
    load_signing_key,
    read_key_file,
)

NODE_VARIABLE: Final = "WATTPRINT_NODE"
KEY_VARIABLE: Final = "WATTPRINT_KEY"
UNLOCK_VARIABLE: Final = "WATTPRINT_PASSPHRASE"
URL_DEFAULT: Final = "http://127.0.0.1:8600"
TIMEOUT_MS_DEFAULT: Final = 30_000
TIMEOUT_MS_MAX: Final = 120_000
ATTEMPTS_MAX: Final = 2  # a person tries again; a program reads exit status 3

R = TypeVar("R")
Option: TypeAlias = tuple[tuple[str, ...], dict[str, Any]]  # click's names and attributes of an option

FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
JSON_OPTION: Final[Option] = (
    ("--json", "as_json"),
    {"is_flag": True, "help": "Print one JSON document and nothing else."},
)
NODE_OPTION: Final[Option] = (
    ("--node", "node_url"),
    {
        "metavar": "URL",
        "envvar": NODE_VARIABLE,
        "default": URL_DEFAULT,
        "help": f"The node to ask; or {NODE_VARIABLE}.  [default: {URL_DEFAULT}]",
    },
)
KEY_OPTION: Final[Option] = (
    ("--key", "key_path"),
    {
        "type": FILE,
        "metavar": "FILE",
        "envvar": KEY_VARIABLE,
        "help": f"The key file that signs; or {KEY_VARIABLE}. Its passphrase: {UNLOCK_VARIABLE}, or asked for.",
    },
)
SIGNING_OPTIONS: Final[tuple[Option, ...]] = (
    KEY_OPTION,
    (
        ("--cosign", "cosigner_paths"),
        {
            "type": FILE,
            "metavar": "FILE",
            "multiple": True,
            "help": "A key file that signs as well, e.g. the owner's; repeatable.",
        },
    ),
    (("--no-wait",), {"is_flag": True, "help": "Return when the node has taken it, not when it is final."}),
    (("--simulate",), {"is_flag": True, "help": "Only show what it would do; nothing is submitted."}),
    (
        ("--timeout-ms",),
        {
            "type": click.IntRange(1, TIMEOUT_MS_MAX),
            "default": TIMEOUT_MS_DEFAULT,
            "show_default": True,
            "help": "How long to wait until it is final.",
        },
    ),
)


@dataclass(frozen=True, slots=True)
class Common:
    """What every command takes."""

    as_json: bool


@dataclass(frozen=True, slots=True)
class Connected(Common):
    """What a command takes that asks a node."""

    url: str
    make_client: Callable[[str], Client]

    def run(self, work: Callable[[Client], Coroutine[Any, Any, R]]) -> R:
        """Do something with a client, and let go of its connections."""

        async def enter() -> R:
            async with self.make_client(self.url) as client:
                return await work(client)

        return asyncio.run(enter())


@dataclass(frozen=True, slots=True)
class Signing(Connected):
    """What a command takes that signs a transaction."""

    key_path: Path | None
    cosigner_paths: tuple[Path, ...]
    has_to_wait: bool
    is_trial: bool
    timeout_ms: int

    def load_key(self) -> SigningKey:
        """The sender's key. Raises ``UsageError`` when none was named, ``KeystoreError``."""
        if self.key_path is None:
            raise click.UsageError(f"Missing option '--key' (or {KEY_VARIABLE}): the key file that signs.")
        return load_key(self.key_path)

    def load_cosigners(self) -> list[SigningKey]:
        """The keys of those who sign with the sender."""
        return [load_key(path) for path in self.cosigner_paths]


def make_client(url: str) -> Client:
    """The client that commands use unless a test gives them another."""
    return Client(url, token=os.environ.get("WATTPRINT_TOKEN"), attempts_max=ATTEMPTS_MAX)


def with_common(command: Callable[..., R]) -> Callable[..., R]:
    """--json; the command's first argument is ``Common``."""

    @wraps(command)
    def enter(**options: Any) -> R:
        return command(Common(options.pop("as_json")), **options)

    return add_options(enter, JSON_OPTION)


def with_node(command: Callable[..., R]) -> Callable[..., R]:
    """--json, --node; the command's first argument is ``Connected``."""

    @click.pass_obj
    @wraps(command)
    def enter(factory: object, /, **options: Any) -> R:
        return command(take_connected(factory, options), **options)

    return add_options(enter, JSON_OPTION, NODE_OPTION)


def with_key(command: Callable[..., R]) -> Callable[..., R]:
    """--json, --node, --key, --cosign, --no-wait, --simulate, --timeout-ms; the first argument is ``Signing``."""

    @click.pass_obj
    @wraps(command)
    def enter(factory: object, /, **options: Any) -> R:
        return command(take_signing(factory, options), **options)

    return add_options(enter, *SIGNING_OPTIONS, JSON_OPTION, NODE_OPTION)


class SharedOption(click.Option):
    """An option of many commands: what the root was given counts for the command, unless that was given its own."""

    def consume_value(self, ctx: click.Context, opts: Mapping[str, click.Parameter]) -> tuple[Any, ParameterSource]:
        """As click's, with the root between the command line and the environment."""
        value, source = super().consume_value(ctx, opts)
        given = ctx.find_root().params.get(self.name or "")
        if given and source is not ParameterSource.COMMANDLINE:
            return given, ParameterSource.COMMANDLINE
        return value, source


def add_options(command: Callable[..., R], *options: Option) -> Callable[..., R]:
    """A command's function with these options, in this order."""
    for names, attributes in reversed(options):
        command = click.option(*names, cls=SharedOption, **attributes)(command)
    return command


def make_options(*options: Option) -> list[click.Parameter]:
    """The same options, for a command that is put together as data."""
    return [SharedOption(names, **attributes) for names, attributes in options]


def make_root_options() -> list[click.Parameter]:
    """Those that may stand before the name of a command as well. What they are without, each command says."""
    return [
        click.Option(names, **{name: value for name, value in attributes.items() if name not in ("envvar", "default")})
        for names, attributes in (JSON_OPTION, NODE_OPTION, KEY_OPTION)
    ]


def take_connected(factory: object, options: dict[str, Any]) -> Connected:
    """Take the options of a question out of a command's own."""
    return Connected(options.pop("as_json"), options.pop("node_url"), _get_factory(factory))


def take_signing(factory: object, options: dict[str, Any]) -> Signing:
    """Take the shared options out of a command's own."""
    return Signing(
        as_json=options.pop("as_json"),
        url=options.pop("node_url"),
        make_client=_get_factory(factory),
        key_path=options.pop("key_path"),
        cosigner_paths=tuple(options.pop("cosigner_paths")),
        has_to_wait=not options.pop("no_wait"),
        is_trial=options.pop("simulate"),
        timeout_ms=options.pop("timeout_ms"),
    )


def _get_factory(factory: object) -> Callable[[str], Client]:
    return factory if callable(factory) else make_client


def load_key(path: Path) -> SigningKey:
    """A participant's or validator's key, asking for its passphrase if it has one."""
    return load_signing_key(path, find_passphrase(path))


def load_any_meter_key(path: Path) -> MeterSigningKey:
    """A meter's key, of either scheme, asking for its passphrase if it has one."""
    return load_meter_key(path, find_passphrase(path))


def find_passphrase(path: Path) -> str | None:
    """The passphrase of a key file: from the environment, or from the person. None for a file in clear."""
    if not read_key_file(path).is_encrypted:
        return None
    known = os.environ.get(UNLOCK_VARIABLE)
    if known is not None:
        return known
    return ask_passphrase(f"Passphrase of {path}")


def ask_passphrase(question: str, *, confirm: bool = False) -> str:
    """Ask a person, unseen, on stderr. Raises ``KeystoreError`` (``passphrase_missing``) when there is none to ask."""
    if not sys.stdin.isatty():
        raise KeystoreError("passphrase_missing", f"set {UNLOCK_VARIABLE}, or ask from a terminal")
    answer: str = click.prompt(question, hide_input=True, confirmation_prompt=confirm, err=True)
    return answer
