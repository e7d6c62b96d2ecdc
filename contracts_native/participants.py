"""Participants: who may sign what.

Owns registration, keys in force and roles, and the check of a transaction's signers that runs before every rule.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Final

from ledger.errors import NotAdmitted, NotPermitted, RuleViolated
from ledger.fields import Length
from ledger.primitives import Address, PublicKey, Signature, compute_address, format_address, is_valid_ed25519
from ledger.receipt import Event, event
from ledger.state import State
from ledger.tables import Table
from ledger.transaction import Declaration, Payload, Transaction, TxContext, transaction

LABEL_BYTES_MAX: Final = 64
ROLES_MAX: Final = 10
POSSESSION_TAG: Final = b"wattprint/key-possession/1\0"


class Role(enum.StrEnum):
    """What a participant may do; each transaction type names the roles that may sign it."""

    ADMIN = "admin"
    UTILITY = "utility"
    INVESTOR = "investor"
    INSTITUTION = "institution"
    CONSUMER = "consumer"
    PROSUMER = "prosumer"
    AUDITOR = "auditor"
    FULFILMENT = "fulfilment"
    ORACLE = "oracle"
    MEASUREMENT_BODY = "measurement_body"


class KycStatus(enum.StrEnum):
    """What a utility's officer decided on the papers."""

    NONE = "none"
    APPROVED = "approved"
    REFUSED = "refused"


# A utility registers its customers; everybody who watches over others, only the admin.
ROLES_OF_CUSTOMERS: Final = frozenset({Role.INVESTOR, Role.INSTITUTION, Role.CONSUMER, Role.PROSUMER, Role.ORACLE})

Roles = Annotated[tuple[Role, ...], Length(ROLES_MAX, 1)]
Label = Annotated[str, Length(LABEL_BYTES_MAX)]


@dataclass(frozen=True, slots=True)
class Participant:
    """A person or organisation: the key in force, the roles, who registered it (None: genesis)."""

    public_key: PublicKey
    roles: Annotated[tuple[Role, ...], Length(ROLES_MAX)]
    label: Label
    registrar: Address | None
    registered_ms: int
    kyc: KycStatus
    is_frozen: bool


PARTICIPANTS: Table[Participant] = Table("pa", Participant, missing="participant_unknown", is_hot=True)


@event("participant.registered")
@dataclass(frozen=True, slots=True)
class ParticipantRegistered(Event):
    """A participant exists from now on."""

    participant: Address
    registrar: Address
    roles: tuple[Role, ...]
    label: str


def check_signers(state: State, tx: Transaction, declaration: Declaration) -> None:
    """Every signer is registered, signs with the key in force and is not frozen; the sender has a role that may sign.

    Raises ``NotAdmitted`` (``signer_unknown``, ``signing_key_not_in_force``) or ``NotPermitted``.
    """
    for address, (public_key, _) in zip(tx.signers, tx.signatures, strict=True):
        participant = PARTICIPANTS.find(state, address)
        if participant is None:
            raise NotAdmitted("signer_unknown", format_address(address))
        if participant.public_key != public_key:
            raise NotAdmitted("signing_key_not_in_force", format_address(address))
        if participant.is_frozen:
            raise NotPermitted("participant_frozen", format_address(address))
    if declaration.roles:
        sender = PARTICIPANTS.get(state, tx.sender)
        if declaration.roles.isdisjoint(sender.roles):
            needed = " or ".join(sorted(declaration.roles))
            raise NotPermitted("role_missing", f"{declaration.tag} needs {needed}")


def get_participant(state: State, address: Address) -> Participant:
    """A registered participant. Raises ``RuleViolated`` (``participant_unknown``)."""
    participant = PARTICIPANTS.find(state, address)
    if participant is None:
        raise RuleViolated("participant_unknown", format_address(address))
    return participant


def has_role(state: State, address: Address, roles: Iterable[Role]) -> bool:
    """Whether a participant is registered and has one of the roles."""
    participant = PARTICIPANTS.find(state, address)
    return participant is not None and not set(participant.roles).isdisjoint(roles)


def check_not_frozen(state: State, address: Address) -> None:
    """A frozen participant's energy and credits do not move. Raises ``NotPermitted``."""
    if get_participant(state, address).is_frozen:
        raise NotPermitted("participant_frozen", format_address(address))


def make_possession_message(chain_id: str, registrar: Address, public_key: PublicKey) -> bytes:
    """What a new participant signs to show that it holds its key: bound to the chain and to its registrar."""
    return POSSESSION_TAG + chain_id.encode() + b"\0" + registrar + public_key


@transaction("participant.register", roles=(Role.ADMIN, Role.UTILITY))
@dataclass(frozen=True, slots=True)
class RegisterParticipant(Payload):
    """Register a participant under its first key; ``possession`` is its signature of ``make_possession_message``."""

    public_key: PublicKey
    possession: Signature
    roles: Roles
    label: Label

    def apply(self, state: State, tx: TxContext) -> None:
        address = compute_address(self.public_key)
        if PARTICIPANTS.find(state, address) is not None:
            raise RuleViolated("participant_already_registered", format_address(address))
        if len(set(self.roles)) != len(self.roles):
            raise RuleViolated("role_named_twice", ", ".join(self.roles))
        message = make_possession_message(tx.block.chain_id, tx.sender, self.public_key)
        if not is_valid_ed25519(self.public_key, message, self.possession):
            raise RuleViolated("key_possession_not_proven", self.public_key.hex())
        # A utility that could appoint an auditor could pick its own supervisor.
        if not ROLES_OF_CUSTOMERS.issuperset(self.roles) and not has_role(state, tx.sender, [Role.ADMIN]):
            raise NotPermitted("role_not_grantable_by_utility", ", ".join(self.roles))
        participant = Participant(
            self.public_key, self.roles, self.label, tx.sender, tx.time_ms, KycStatus.NONE, is_frozen=False
        )
        PARTICIPANTS.put(state, address, value=participant)
        state.emit(ParticipantRegistered(address, tx.sender, self.roles, self.label))
