"""What users read is no Python: neither the help of a command nor the OpenRPC document."""

from __future__ import annotations

import json

import click

from contracts_native.table import load_table
from node.cli.app import app
from node.openrpc import make_document
from node.prose import make_prose
from node.rpc_methods import METHODS


def test_what_is_for_programmers_is_left_out() -> None:
    text = """A bill of ``bill_list``. Raises ``NotFound``, or
    ``Rejected`` (``period_too_long``, ``sites_too_many``).

    Its lines too. The id: ``tx.make_id("bill")``.
    """
    assert make_prose(text) == "A bill of `bill_list`.\n\nIts lines too."
    assert make_prose("Raises ``NotFound``. Then more.") == "Then more."
    assert make_prose(None) == ""


def test_no_help_names_exceptions_or_helpers_of_the_code() -> None:
    found: list[str] = []

    def walk(command: click.Command, name: str) -> None:
        text = f"{command.help or ''} {command.get_short_help_str(500)}"
        found.extend(f"{name}: {word}" for word in ("Raises", "``", "make_id") if word in text)
        if isinstance(command, click.Group):
            context = click.Context(command)
            for inner in command.list_commands(context):
                one = command.get_command(context, inner)
                assert one is not None
                walk(one, f"{name} {inner}")

    walk(app, "wattprint")
    assert found == []


def test_the_openrpc_document_names_none_either() -> None:
    text = json.dumps(make_document(METHODS.values(), load_table(), version="1"))
    assert [word for word in ("Raises", "``", "make_id") if word in text] == []
