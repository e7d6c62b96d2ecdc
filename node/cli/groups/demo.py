"""``wattprint demo``: the whole story on real meter data, played on four validators of this machine.

Owns the options only; the story is node/demo's.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import click
from rich.console import Console

from node.cli.options import Common, with_common
from node.demo import DemoOptions, run
from node.demo.data import DAYS_MAX
from node.demo.story import DAYS_DEFAULT


@click.command()
@click.option(
    "--days",
    type=click.IntRange(1, DAYS_MAX),
    default=DAYS_DEFAULT,
    show_default=True,
    help="How many days of the community's readings to settle.",
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Keep the chain, the keys and the logs here; it must be empty.  [default: a temporary one]",
)
@click.option("--keep", is_flag=True, help="Keep the temporary directory as well.")
@with_common
def command(common: Common, days: int, directory: Path | None, keep: bool) -> None:
    """Four validators settle a week of real meter data, and prove it. Exit status 0: every check held.

    \b
    Example:
      wattprint demo
      wattprint demo --days 1 --json
      wattprint demo --directory demo    # then: wattprint testnet start --directory demo
    """
    options = DemoOptions(days=days, directory=directory, keep=keep, as_json=common.as_json)
    try:
        status = asyncio.run(run(options, Console()))
    except asyncio.CancelledError:  # a closed terminal, or a polite kill
        raise click.Abort from None
    if status:
        click.get_current_context().exit(status)
