"""The page of the protocol is what the declarations say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from contracts_native.credits import RedemptionStatus
from contracts_native.table import load_table
from ledger.fields import Bounds, Length
from ledger.primitives import Address
from node.protocol_page import make_protocol_page, show_type

PAGE = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"


def test_the_page_in_docs_is_up_to_date() -> None:
    expected = make_protocol_page(load_table())
    assert PAGE.read_text() == expected, "renew it: wattprint tx types --markdown > docs/protocol.md"


def test_every_transaction_and_event_is_on_the_page() -> None:
    page, table = make_protocol_page(load_table()), load_table()
    for name in (*table.payloads, *table.events):
        assert f"### `{name}`\n" in page


def test_a_type_is_shown_in_words_with_its_limits() -> None:
    assert show_type(Annotated[int, Bounds(1, 9)]) == "int (1 … 9)"
    assert show_type(Annotated[tuple[Address, ...], Length(3, 1)]) == "list of Address (1 … 3 long)"
    assert show_type(Annotated[bytes, Length(16, 16)]) == "bytes (16 long)"
    assert show_type(str | None) == "str, or nothing"
    assert show_type(RedemptionStatus) == "one of `requested`, `paid`, `failed`"
