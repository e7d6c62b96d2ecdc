"""Docstrings as users read them: the program's help and the OpenRPC document are made of them.

Owns what is left out: what a docstring says to those who call it from Python.
"""

from __future__ import annotations

import inspect
import re
from typing import Final

# "Raises ``NotFound`` (``bill_not_found``)." and "The id\b[^.]*: ``tx.make_id("bill")``."
_FOR_PROGRAMMERS: Final = re.compile(r"\s*\b(?:Raises\s+``[^.]*\.|The id\b[^.]*: ``tx\.make_id\([^)]*\)``\.)")


def make_prose(docstring: str | None) -> str:
    """The text of a docstring without exceptions and Python names, and with single quotes of code."""
    return _FOR_PROGRAMMERS.sub("", inspect.cleandoc(docstring or "")).replace("``", "`").strip()
