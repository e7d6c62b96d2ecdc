"""``wattprint bench``: how much the chain settles on this machine, and how soon.

Owns the commands only; networks, loads and figures are node/bench's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import click

from node.bench.catching_up import VALIDATORS_MIN
from node.bench.run import BLOCK_MS_DEFAULT, BenchOptions, Measurement, format_table, run, to_json
from node.cli.options import Common, add_options, with_common
from node.cli.output import note, show
from node.rpc_methods import SUBMIT_MANY_MAX
from node.testnet import VALIDATORS_MAX

DEFAULTS: Final = BenchOptions()
_validators = (
    ("--validators",),
    {
        "type": click.IntRange(1, VALIDATORS_MAX),
        "multiple": True,
        "default": DEFAULTS.validators,
        "show_default": True,
        "help": "How many validators; repeatable, each is measured on a fresh network.",
    },
)
_others = (
    ("--validators",),
    {
        "type": click.IntRange(VALIDATORS_MIN, VALIDATORS_MAX),
        "multiple": True,
        "default": (VALIDATORS_MIN,),
        "show_default": True,
        "help": "How many validators, the one that is away included; repeatable.",
    },
)
_block_ms = (
    ("--block-ms",),
    {"type": click.IntRange(10, 60_000), "default": BLOCK_MS_DEFAULT, "show_default": True},
)
_connections = (
    ("--connections",),
    {"type": click.IntRange(1, 256), "default": DEFAULTS.connections, "show_default": True, "help": "Of the load."},
)
_per_request = (
    ("--per-request",),
    {
        "type": click.IntRange(1, SUBMIT_MANY_MAX),
        "multiple": True,
        "default": DEFAULTS.per_request,
        "show_default": True,
        "help": "Transfers in each request; repeatable, each is measured on a fresh network.",
    },
)
_transfers = (
    ("--transfers",),
    {"type": click.IntRange(100, 1_000_000), "default": DEFAULTS.transfers, "show_default": True},
)
_days = (
    ("--days",),
    {"type": click.IntRange(1, 1_000), "default": DEFAULTS.days, "show_default": True, "help": "Of quarter-hours."},
)


@click.group()
def command() -> None:
    """Measure the chain on this machine: over JSON-RPC, counted when every validator has committed.

    \b
    Example:
      wattprint bench transfers
      wattprint bench readings --validators 4 --json
    """


def _measure(common: Common, measurements: tuple[Measurement, ...], **options: Any) -> None:
    note(common, "starting networks of real processes; this takes a minute or two")
    results = asyncio.run(run(BenchOptions(measurements=measurements, **options)))
    show(common, to_json(results), format_table(results))


def _add(
    name: str, text: str, measurements: tuple[Measurement, ...], *options: Any, validators: Any = _validators
) -> Callable[..., None]:
    def measure(common: Common, **given: Any) -> None:
        _measure(common, measurements, **given)

    measure.__doc__ = text
    function = with_common(add_options(measure, validators, *options, _block_ms))
    command.command(name=name, help=text)(function)
    return function


_add(
    "transfers",
    "Signed transfers of credits a second.",
    (Measurement.TRANSFERS,),
    _transfers,
    _per_request,
    _connections,
)
_add("readings", "Signed meter intervals a second.", (Measurement.READINGS,), _days)
_add("finality", "Time from submission to finality: alone, and at a moderate load.", (Measurement.FINALITY,))
_add("sync", "How fast a node that was away catches up.", (Measurement.SYNC,), _transfers, validators=_others)
_add("all", "Everything.", tuple(Measurement), _transfers, _per_request, _days, _connections)
