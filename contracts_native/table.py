"""The table of every transaction, as the node hands it to the ledger.

Owns its putting together: every module of this package is searched for payloads, events and tables, so that a new
transaction, or a whole new family, is one file.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from types import ModuleType
from typing import Final, cast

import contracts_native
from contracts_native import genesis, governance, participants
from ledger.parameters import PARAMETER_HISTORY, PARAMETERS
from ledger.receipt import Event
from ledger.state import State
from ledger.tables import Table
from ledger.transaction import Declaration, Payload, Transaction, TransactionTable, make_table
from ledger.validators import PROTOCOL, VALIDATOR_HISTORY, VALIDATORS

PROTOCOL_VERSION_MAX: Final = 1  # the highest version whose rules stand in this package


@cache
def load_table() -> TransactionTable:
    """The table of every transaction and event of the packages' modules; the same object each time."""
    modules = [
        importlib.import_module(f"{contracts_native.__name__}.{info.name}")
        for info in pkgutil.iter_modules(contracts_native.__path__)
    ]
    return make_table(
        payloads=[kind for kind in _find_types(modules, Payload) if "declaration" in vars(kind)],
        events=[kind for kind in _find_types(modules, Event) if "name" in vars(kind)],
        tables=_find_tables(modules),
        authorise=check_signers,
        found=genesis.found,
        finish_block=governance.finish_block,
        version_max=PROTOCOL_VERSION_MAX,
    )


def check_signers(state: State, tx: Transaction, declaration: Declaration) -> None:
    """Authorities sign with the keys that they vote with; everybody else is a participant. Raises ``Rejected``."""
    if governance.is_for_authorities(declaration):
        governance.check_signers(state, tx, declaration)
    else:
        participants.check_signers(state, tx, declaration)


def _find_types(modules: list[ModuleType], base: type) -> list[type]:
    return [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
    ]


def _find_tables(modules: list[ModuleType]) -> list[Table[object]]:
    of_ledger = (PARAMETERS, PARAMETER_HISTORY, VALIDATORS, VALIDATOR_HISTORY, PROTOCOL)
    tables = [*of_ledger, *(value for module in modules for value in vars(module).values())]
    # A table is seen once for each module that imports it.
    return list({id(table): cast("Table[object]", table) for table in tables if isinstance(table, Table)}.values())
