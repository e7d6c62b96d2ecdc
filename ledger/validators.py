"""Who decides, as the state keeps it: the set of the next block, every set there was, and the protocol version.

Owns the tables that headers are checked against. What changes them, and when, is a rule of the contracts; the ledger
only reads them after each block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from ledger.authorities import compute_validators_hash
from ledger.fields import Bounds, Length
from ledger.primitives import Hash, PublicKey
from ledger.tables import Table

if TYPE_CHECKING:
    from ledger.state import State

VALIDATORS_MAX: Final = 100
MONIKER_BYTES_MAX: Final = 64

Moniker = Annotated[str, Length(MONIKER_BYTES_MAX)]


@dataclass(frozen=True, slots=True)
class Member:
    """An authority: the key that proposes and votes, and a name for people."""

    public_key: PublicKey
    moniker: Moniker


@dataclass(frozen=True, slots=True)
class ValidatorRecord:
    """A set of authorities, in the order in which they propose."""

    members: Annotated[tuple[Member, ...], Length(VALIDATORS_MAX, 1)]

    def find_index(self, public_key: PublicKey) -> int | None:
        """The position of a key, or None for a stranger."""
        return next((i for i, member in enumerate(self.members) if member.public_key == public_key), None)

    def compute_hash(self) -> Hash:
        """The hash of the set that stands in headers."""
        return compute_validators_hash((member.public_key, member.moniker) for member in self.members)


@dataclass(frozen=True, slots=True)
class ProtocolVersion:
    """The rules in force for the next block."""

    version: Annotated[int, Bounds(1, 2**31)]


VALIDATORS: Table[ValidatorRecord] = Table("va", ValidatorRecord, missing="validators_missing", is_hot=True)
VALIDATOR_HISTORY: Table[ValidatorRecord] = Table("vh", ValidatorRecord, missing="validators_missing")  # by height
PROTOCOL: Table[ProtocolVersion] = Table("pv", ProtocolVersion, missing="protocol_version_missing", is_hot=True)


def set_validators(state: State, record: ValidatorRecord, *, from_height: int) -> None:
    """Let a set decide from a height on. Old sets stay, so that old keys stay answerable."""
    VALIDATORS.put(state, value=record)
    VALIDATOR_HISTORY.put(state, from_height, value=record)


def find_validators_at(state: State, height: int) -> ValidatorRecord | None:
    """The set that decides the block of a height; for a height to come, as it stands now."""
    found = VALIDATOR_HISTORY.find_floor(state, height)
    return None if found is None else found[1]


def get_protocol_version(state: State) -> int:
    """The version of the rules that the next block is under."""
    return PROTOCOL.get(state).version
