"""Participants: who may sign what.

Owns registration, keys in force, roles and freezes, and the check of a transaction's signers that runs before every
rule. An address names its participant for ever, whatever keys follow the first (decisions on papers: kyc.py).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Final

from ledger.errors import NotAdmitted, NotPermitted, RuleViolated
from ledger.fields import Length
from ledger.primitives import Address, PublicKey, Signature, compute_address, format_address, is_valid_ed25519
from ledger.receipt import Event, event
from ledger.state import State
from ledger.tables import Table
from ledger.transaction import ANYONE, Declaration, Payload, Transaction, TxContext, transaction

LABEL_BYTES_MAX: Final = 64
FREEZE_REASON_BYTES_MAX: Final = 256
ROLES_MAX: Final = 10
POSSESSION_TAG: Final = b"wattprint/key-possession/1\0"
ROTATION_TAG: Final = b"wattprint/key-rotation/1\0"


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


class Standing(enum.StrEnum):
    """Whether a participant may act, and whether what it has may move."""

    FREE = "free"
    FROZEN = "frozen"


# (standing, transaction about a participant) → the standing that follows. What is not here is refused.
PARTICIPANT_TRANSITIONS: Final[Mapping[tuple[Standing, str], Standing]] = {
    (Standing.FREE, "participant.freeze"): Standing.FROZEN,
    (Standing.FROZEN, "participant.unfreeze"): Standing.FREE,
    (Standing.FREE, "participant.set_roles"): Standing.FREE,
    (Standing.FROZEN, "participant.set_roles"): Standing.FROZEN,
    (Standing.FREE, "participant.decide_kyc"): Standing.FREE,
    (Standing.FROZEN, "participant.decide_kyc"): Standing.FROZEN,
    (Standing.FREE, "participant.rotate_key"): Standing.FREE,  # by itself, and who is frozen signs nothing
}

# A utility registers its customers; everybody who watches over others, only the admin.
ROLES_OF_CUSTOMERS: Final = frozenset({Role.INVESTOR, Role.INSTITUTION, Role.CONSUMER, Role.PROSUMER, Role.ORACLE})

Roles = Annotated[tuple[Role, ...], Length(ROLES_MAX, 1)]
Label = Annotated[str, Length(LABEL_BYTES_MAX)]
FreezeReason = Annotated[str, Length(FREEZE_REASON_BYTES_MAX, 1)]


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

    @property
    def standing(self) -> Standing:
        """Frozen or free."""
        return Standing.FROZEN if self.is_frozen else Standing.FREE


@dataclass(frozen=True, slots=True)
class RotatedKey:
    """The participant that a later key was given to, found by the address that the key would give."""

    participant: Address


PARTICIPANTS: Table[Participant] = Table("pa", Participant, missing="participant_unknown", is_hot=True)
ROTATED_KEYS: Table[RotatedKey] = Table("pk", RotatedKey, missing="key_unknown")


@event("participant.registered")
@dataclass(frozen=True, slots=True)
class ParticipantRegistered(Event):
    """A participant exists from now on."""

    participant: Address
    registrar: Address
    roles: tuple[Role, ...]
    label: str


@event("participant.key_rotated")
@dataclass(frozen=True, slots=True)
class KeyRotated(Event):
    """Another key speaks for a participant; the address stays."""

    participant: Address
    public_key: PublicKey


@event("participant.roles_set")
@dataclass(frozen=True, slots=True)
class RolesSet(Event):
    """What a participant may do from now on."""

    participant: Address
    roles: tuple[Role, ...]
    set_by: Address


@event("participant.frozen")
@dataclass(frozen=True, slots=True)
class ParticipantFrozen(Event):
    """Nothing of a participant moves from now on, and it signs nothing."""

    participant: Address
    auditor: Address
    reason: FreezeReason


@event("participant.unfrozen")
@dataclass(frozen=True, slots=True)
class ParticipantUnfrozen(Event):
    """A participant is free again."""

    participant: Address
    auditor: Address
    reason: FreezeReason


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


def make_rotation_message(chain_id: str, participant: Address, public_key: PublicKey) -> bytes:
    """What the new key of a participant signs: bound to the chain and to the participant."""
    return ROTATION_TAG + chain_id.encode() + b"\0" + participant + public_key


def is_known_key(state: State, public_key: PublicKey) -> bool:
    """Whether a key is, or once was, the key of a participant: no second one may have it, and none comes back."""
    address = compute_address(public_key)
    return PARTICIPANTS.find(state, address) is not None or ROTATED_KEYS.find(state, address) is not None


def check_standing(participant: Participant, address: Address, tag: str) -> Standing:
    """The standing that follows a transaction. Raises ``RuleViolated`` (``participant_not_open_to_this``)."""
    standing = PARTICIPANT_TRANSITIONS.get((participant.standing, tag))
    if standing is None:
        raise RuleViolated(
            "participant_not_open_to_this", f"{format_address(address)} is {participant.standing}: no {tag}"
        )
    return standing


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
        if is_known_key(state, self.public_key):
            raise RuleViolated("key_already_used", self.public_key.hex())
        _check_named_once(self.roles)
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


@transaction("participant.rotate_key", roles=ANYONE)
@dataclass(frozen=True, slots=True)
class RotateKey(Payload):
    """Give the sender another key, in force from the next transaction on; the address stays.

    ``possession`` is the new key's signature of ``make_rotation_message``. No key ever comes back.
    """

    public_key: PublicKey
    possession: Signature

    def apply(self, state: State, tx: TxContext) -> None:
        participant = get_participant(state, tx.sender)
        check_standing(participant, tx.sender, "participant.rotate_key")
        if is_known_key(state, self.public_key):
            raise RuleViolated("key_already_used", self.public_key.hex())
        message = make_rotation_message(tx.block.chain_id, tx.sender, self.public_key)
        if not is_valid_ed25519(self.public_key, message, self.possession):
            raise RuleViolated("key_possession_not_proven", self.public_key.hex())
        PARTICIPANTS.put(state, tx.sender, value=replace(participant, public_key=self.public_key))
        ROTATED_KEYS.put(state, compute_address(self.public_key), value=RotatedKey(tx.sender))
        state.emit(KeyRotated(tx.sender, self.public_key))


@transaction("participant.set_roles", roles=(Role.ADMIN, Role.UTILITY))
@dataclass(frozen=True, slots=True)
class SetRoles(Payload):
    """Say what a participant may do: the admin for anyone else, a utility for the customers that it registered.

    Nobody changes their own roles, so that there is always an admin left.
    """

    participant: Address
    roles: Roles

    def apply(self, state: State, tx: TxContext) -> None:
        participant = get_participant(state, self.participant)
        check_standing(participant, self.participant, "participant.set_roles")
        _check_named_once(self.roles)
        if self.participant == tx.sender:
            raise NotPermitted("roles_of_oneself", format_address(tx.sender))
        if not has_role(state, tx.sender, [Role.ADMIN]):
            if participant.registrar != tx.sender:
                raise NotPermitted("participant_of_another_registrar", format_address(self.participant))
            # Neither giving nor taking: an auditor must not lose its role to those it watches over.
            if not ROLES_OF_CUSTOMERS.issuperset({*self.roles, *participant.roles}):
                raise NotPermitted("role_not_grantable_by_utility", ", ".join(self.roles))
        if self.roles == participant.roles:
            raise RuleViolated("roles_already_set", ", ".join(self.roles))
        PARTICIPANTS.put(state, self.participant, value=replace(participant, roles=self.roles))
        state.emit(RolesSet(self.participant, self.roles, tx.sender))


@transaction("participant.freeze", roles=(Role.AUDITOR,))
@dataclass(frozen=True, slots=True)
class FreezeParticipant(Payload):
    """Hold all that a participant has where it is, and refuse its signature, until it is unfrozen."""

    participant: Address
    reason: FreezeReason

    def apply(self, state: State, tx: TxContext) -> None:
        if self.participant == tx.sender:
            raise NotPermitted("freeze_of_oneself", format_address(tx.sender))
        _set_frozen(state, self.participant, "participant.freeze")
        state.emit(ParticipantFrozen(self.participant, tx.sender, self.reason))


@transaction("participant.unfreeze", roles=(Role.AUDITOR,))
@dataclass(frozen=True, slots=True)
class UnfreezeParticipant(Payload):
    """Let a frozen participant act again."""

    participant: Address
    reason: FreezeReason

    def apply(self, state: State, tx: TxContext) -> None:
        _set_frozen(state, self.participant, "participant.unfreeze")
        state.emit(ParticipantUnfrozen(self.participant, tx.sender, self.reason))


def _set_frozen(state: State, address: Address, tag: str) -> None:
    participant = get_participant(state, address)
    standing = check_standing(participant, address, tag)
    PARTICIPANTS.put(state, address, value=replace(participant, is_frozen=standing is Standing.FROZEN))


def _check_named_once(roles: tuple[Role, ...]) -> None:
    if len(set(roles)) != len(roles):
        raise RuleViolated("role_named_twice", ", ".join(roles))
