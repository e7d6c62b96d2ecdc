"""Which store of documents a command works on, and how a person sees that a large file is on its way.

Owns --store, where it leads without being told, and the bar. A store is a directory of this machine, or the address
of an IPFS daemon's API.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from node.cli.options import Common, Option
from node.documents.places import open_store_at
from node.documents.service import Report, say_nothing
from node.documents.store import DocumentStore

STORE_VARIABLE: Final = "WATTPRINT_STORE"
HOME_VARIABLE: Final = "WATTPRINT_HOME"
STORE_DIRECTORY: Final = "documents"
HOME_DIRECTORY: Final = ".wattprint"
BAR_BYTES_LEAST: Final = 4 * 1024 * 1024  # what is smaller is done before it is drawn

STORE_OPTION: Final[Option] = (
    ("--store", "store_place"),
    {
        "metavar": "DIR|ADDRESS",
        "envvar": STORE_VARIABLE,
        "help": "Where documents are: a directory, or an IPFS daemon such as /ip4/127.0.0.1/tcp/5001; or "
        f"{STORE_VARIABLE}.  [default: {STORE_DIRECTORY} in {HOME_VARIABLE}, or in ~/{HOME_DIRECTORY}]",
    },
)


def open_store(place: str | None, *, must_exist: bool = False) -> DocumentStore:
    """The store at a place, or the one of this person, which is made. Raises ``StoreFailed``.

    ``must_exist``: a directory that was named is not made, so that a slip of the pen is not an empty store.
    """
    if place is None:
        return open_store_at(str(find_default_place()), base=Path.cwd())
    return open_store_at(place, base=Path.cwd(), must_exist=must_exist)


def find_default_place() -> Path:
    """The embedded store of a node's home, if one is named, else of this person."""
    home = os.environ.get(HOME_VARIABLE)
    return (Path(home) if home else Path.home() / HOME_DIRECTORY) / STORE_DIRECTORY


@contextmanager
def show_progress(common: Common) -> Iterator[Report]:
    """A bar on stderr for each thing that is done to a large file; none in a pipe, none for a program."""
    console = Console(stderr=True)
    if common.as_json or not console.is_terminal:
        yield say_nothing
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    bars = Progress(*columns, console=console)
    tasks: dict[str, TaskID] = {}

    def report(what: str, done: int, total: int) -> None:
        if total < BAR_BYTES_LEAST:
            return
        if what not in tasks:
            tasks[what] = bars.add_task(what, total=total)
        bars.update(tasks[what], completed=done, total=max(total, done))

    with bars:
        yield report


@contextmanager
def show_count(common: Common, what: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on stderr that one call advances by one; none in a pipe, none for a program."""
    console = Console(stderr=True)
    if common.as_json or not console.is_terminal:
        yield lambda: None
        return
    bars = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console)
    with bars:
        task = bars.add_task(what, total=total)
        yield lambda: bars.advance(task)
