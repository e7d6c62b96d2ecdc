"""Refusals: the one tree of errors that a stranger's mistake may raise.

    Rejected(reason, item)
    ├── Malformed        bytes or JSON that do not have the required form
    ├── NotAdmitted      a well-formed envelope that the chain cannot take (window, chain id, signature, replay)
    ├── NotPermitted     the signer lacks the role, or is frozen
    └── RuleViolated     a rule of the domain refuses the change

A reason is a stable code that reads as a sentence; the item names what is at fault.
"""

from __future__ import annotations

from typing import Self


class Rejected(Exception):
    """A refusal. ``reason`` is a stable snake_case sentence, ``item`` names what is at fault (may be empty)."""

    def __init__(self, reason: str, item: object = "") -> None:
        self.reason = reason
        self.item = str(item)
        super().__init__(f"{reason}: {self.item}" if self.item else reason)

    def restate(self) -> Self:
        """The same words, not raised yet. One that was raised keeps the frames that it passed, and all in them."""
        return type(self)(self.reason, self.item)


class Malformed(Rejected):
    """Bytes or JSON that do not have the required form."""


class NotAdmitted(Rejected):
    """A well-formed transaction that this chain cannot take, whatever its rules say."""


class NotPermitted(Rejected):
    """The signer may not do this: a role is missing, or the participant is frozen."""


class RuleViolated(Rejected):
    """A rule of the domain refuses the change."""


class CorruptStore(Exception):
    """What the disk returned cannot be what was written; the node stops rather than guess."""
