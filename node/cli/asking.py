"""Questions put to a running node, or to the store of one that is stopped: for whoever asks it is the same.

Owns ``--offline``: the very functions that answer over JSON-RPC read the store of a node's home.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import click

from contracts_native.table import load_table
from ledger.errors import CorruptStore
from ledger.fields import Json
from node.cli.options import Connected
from node.config import read_config
from node.errors import LocalError
from node.exports import Answer, Ask
from node.launch import STORE_NAME
from node.leveldb_store import LevelDbStore
from node.queries.catalogue import QUERIES
from node.queries.view import View
from node.rpc_methods import METHODS

R = TypeVar("R")
_QUERIES: Final = {query.__name__: query for query in QUERIES}

with_offline = click.option(
    "--offline",
    "home",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    metavar="DIR",
    help="Ask no node: read the store of this node's home. The node must not run.",
)


def run_asking(connected: Connected, home: Path | None, work: Callable[[Ask], Coroutine[Any, Any, R]]) -> R:
    """Do something that asks questions, of a node or of the store in a home. Raises ``LocalError``."""
    if home is not None:
        with open_view(home) as view:
            return asyncio.run(work(make_offline_ask(view)))

    async def work_online(client: Any) -> R:
        def ask(method: str, params: dict[str, Json]) -> Awaitable[Answer]:
            return cast("Awaitable[Answer]", client.call(method, **params))

        return await work(ask)

    return connected.run(work_online)


@contextmanager
def open_view(home: Path) -> Iterator[View]:
    """The committed chain of a node that does not run. Raises ``LocalError`` (``store_missing``, ``store_locked``)."""
    directory = read_config(home).chain_directory / STORE_NAME
    if not directory.is_dir():
        raise LocalError("store_missing", f"{directory}: this node has never run")
    store = LevelDbStore(directory)
    try:
        yield View(store, load_table())
    except CorruptStore as error:
        raise LocalError("store_corrupt", error) from error
    finally:
        store.close()


def make_offline_ask(view: View) -> Ask:
    """Questions answered from a store. They raise ``Rejected`` where a node would answer with an error."""

    async def ask(method: str, params: dict[str, Json]) -> Answer:
        given: dict[str, Json] = {name: value for name, value in params.items() if value is not None}
        return cast(Answer, _QUERIES[method](view, **METHODS[method].bind(given)))

    return ask
