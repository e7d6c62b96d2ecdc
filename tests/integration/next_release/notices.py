"""What the next release has that this one has not: notices, one of each number.

Owns ``notice.post``, a transaction of protocol version 2.
"""

from __future__ import annotations

from dataclasses import dataclass

from ledger.errors import RuleViolated
from ledger.primitives import Address
from ledger.receipt import Event, event
from ledger.state import State
from ledger.tables import Table
from ledger.transaction import ANYONE, Payload, TxContext, transaction


@dataclass(frozen=True, slots=True)
class Notice:
    """Who posted it."""

    author: Address


NOTICES: Table[Notice] = Table("zz", Notice, missing="notice_unknown")


@event("notice.posted")
@dataclass(frozen=True, slots=True)
class NoticePosted(Event):
    """A notice is there."""

    number: int
    author: Address


@transaction("notice.post", roles=ANYONE, since_version=2)
@dataclass(frozen=True, slots=True)
class PostNotice(Payload):
    """Post the notice of a number that nobody has posted."""

    number: int

    def apply(self, state: State, tx: TxContext) -> None:
        if NOTICES.find(state, self.number) is not None:
            raise RuleViolated("notice_already_posted", self.number)
        NOTICES.put(state, self.number, value=Notice(tx.sender))
        state.emit(NoticePosted(self.number, tx.sender))
