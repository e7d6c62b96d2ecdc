"""How an answer is put together so that its type says what is in it.

Owns the types of objects that are made of others: a stored record beside an id, one without a field. They exist for
mypy, which checks the code that builds an answer, and for node/result_schemas.py, which tells clients; at run time
every one of them is a plain dict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from ledger.fields import Json

First = TypeVar("First", bound=Mapping[str, Any])
Second = TypeVar("Second", bound=Mapping[str, Any])
Whole = TypeVar("Whole", bound=Mapping[str, Any])
Name = TypeVar("Name", bound=str)


class Merged(dict[str, Json], Generic[First, Second]):
    """The fields of both. One that both have is the second's."""


class Without(dict[str, Json], Generic[Whole, Name]):
    """All fields but the one that ``Name``, a ``Literal``, says."""


@dataclass(frozen=True, slots=True)
class Named:
    """The name under which clients find a type that has none of its own: ``Annotated[Merged[…], Named("Site")]``."""

    name: str


def merge(first: First, second: Second) -> Merged[First, Second]:
    """The second after the first, as ``{**first, **second}``."""
    return cast("Merged[First, Second]", {**first, **second})


def leave_out(whole: Whole, name: Name) -> Without[Whole, Name]:
    """A copy without a field."""
    return cast("Without[Whole, Name]", {field: value for field, value in whole.items() if field != name})
