"""The genesis document, and the first state that follows from it.

Owns who is there at the start: the validators, the first participants, the parameters. Its hash names the chain in
every signed consensus message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from ledger.block import PROTOCOL_VERSION, Header, compute_transactions_root
from ledger.encoding import encode
from ledger.errors import Malformed
from ledger.fields import Bounds, Json, Length, from_json, to_json, to_plain
from ledger.parameters import Parameters, set_parameters
from ledger.primitives import ZERO_HASH, Hash, PublicKey, sha256
from ledger.receipt import compute_events_root
from ledger.state import State
from ledger.storage import MemoryStore
from ledger.transaction import CHAIN_ID_BYTES_MAX
from ledger.validators import (
    PROTOCOL,
    VALIDATORS_MAX,
    Member,
    ProtocolVersion,
    ValidatorRecord,
    set_validators,
)

if TYPE_CHECKING:
    from ledger.transaction import TransactionTable

GENESIS_TAG: Final = b"wattprint/genesis/1\0"
PARTICIPANTS_MAX: Final = 1_000
LABEL = Annotated[str, Length(64)]


@dataclass(frozen=True, slots=True)
class GenesisValidator:
    """An authority: the key that proposes and votes, and a name for people."""

    public_key: PublicKey
    moniker: LABEL


@dataclass(frozen=True, slots=True)
class GenesisParticipant:
    """A participant that needs nobody to register it; ``credit_limit_cents`` > 0 makes it an issuer of credits."""

    public_key: PublicKey
    label: LABEL
    roles: tuple[str, ...]
    credit_limit_cents: int


@dataclass(frozen=True, slots=True)
class GenesisDocument:
    """All that a chain starts from. ``time_ms`` is the block time of height 0."""

    chain_id: Annotated[str, Length(CHAIN_ID_BYTES_MAX, 1)]
    time_ms: Annotated[int, Bounds(1, 2**53)]
    validators: Annotated[tuple[GenesisValidator, ...], Length(VALIDATORS_MAX, 1)]
    participants: Annotated[tuple[GenesisParticipant, ...], Length(PARTICIPANTS_MAX)]
    parameters: Parameters


def read_genesis(data: Json) -> GenesisDocument:
    """A genesis document from its JSON. Raises ``Malformed``."""
    document = from_json(GenesisDocument, data)
    keys = [validator.public_key for validator in document.validators]
    if len(set(keys)) != len(keys):
        raise Malformed("validator_named_twice")
    return document


def write_genesis(document: GenesisDocument) -> Json:
    """The JSON form of a genesis document."""
    return to_json(document)


def compute_genesis_hash(document: GenesisDocument) -> Hash:
    """What names the chain in signed consensus messages, and what the first block calls its parent."""
    return sha256(GENESIS_TAG + encode(to_plain(document)))


def compute_genesis_changes(document: GenesisDocument, table: TransactionTable) -> dict[bytes, bytes | None]:
    """The first state, as changes to an empty one."""
    state = State(MemoryStore())
    set_parameters(state, document.parameters, from_height=0)
    members = tuple(Member(one.public_key, one.moniker) for one in document.validators)
    set_validators(state, ValidatorRecord(members), from_height=0)
    PROTOCOL.put(state, value=ProtocolVersion(PROTOCOL_VERSION))
    table.found(state, document)
    return state.compute_changes()


def make_genesis_header(document: GenesisDocument, *, state_root: Hash, validators_hash: Hash) -> Header:
    """The header of height 0: no transactions, the root of the first state."""
    return Header(
        version=PROTOCOL_VERSION,
        chain_id=document.chain_id,
        height=0,
        time_ms=document.time_ms,
        parent_id=compute_genesis_hash(document),
        proposer=PublicKey(bytes(ZERO_HASH)),
        transactions_count=0,
        transactions_root=compute_transactions_root(()),
        events_root=compute_events_root(()),
        state_root=state_root,
        validators_hash=validators_hash,
        next_validators_hash=validators_hash,
    )
