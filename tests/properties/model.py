"""A plain model of the domain, to compare the contracts with: people and their credits. The rest stands on it.

Written from DOMAIN.md and not from the code. It has no tables and no guards in order: each transaction is one method
that says every reason for which it must be refused, and does what it does when there is none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

CUSTOMERS: Final = {"investor", "institution", "consumer", "prosumer", "oracle"}
UTILITY_ONLY: Final = {"utility"}
# Who may sign; what is not here, anyone who is registered.
SIGNERS: Final[dict[str, set[str]]] = {
    "participant.register": {"admin", "utility"},
    "participant.set_roles": {"admin", "utility"},
    "participant.decide_kyc": UTILITY_ONLY,
    "participant.freeze": {"auditor"},
    "participant.unfreeze": {"auditor"},
    "site.register": UTILITY_ONLY,
    "site.amend": UTILITY_ONLY,
    "site.set_shares": UTILITY_ONLY,
    "meter.register": UTILITY_ONLY,
    "meter.rotate_key": UTILITY_ONLY,
    "meter.suspend": UTILITY_ONLY,
    "meter.resume": UTILITY_ONLY,
    "meter.retire": UTILITY_ONLY,
    "reading.correct": {"measurement_body"},
    "energy.withdraw": {"measurement_body"},
    "credit.issue": {"admin", "utility"},
    "credit.confirm_payout": {"fulfilment"},
    "credit.fail_payout": {"fulfilment"},
    "escrow.approve_return": UTILITY_ONLY,
    "escrow.reject_return": UTILITY_ONLY,
    "escrow.set_off": UTILITY_ONLY,
    "bill.issue": UTILITY_ONLY,
    "bill.resolve": UTILITY_ONLY,
    "bill.credit_note": UTILITY_ONLY,
}

Reasons = set[str]


def gather(*pairs: tuple[bool, str]) -> Reasons:
    """The reasons that hold."""
    return {reason for is_so, reason in pairs if is_so}


@dataclass(eq=False)
class Member:
    """A participant."""

    address: bytes
    key: bytes
    roles: tuple[str, ...]
    registrar: bytes | None
    is_frozen: bool = False
    kyc: str = "none"
    kyc_cites: tuple[str, bytes, int] | None = None


@dataclass(eq=False)
class Redemption:
    """Credits on their way out."""

    holder: bytes
    issuer: bytes
    cents: int
    status: str = "requested"
    id: bytes = b""


@dataclass(eq=False)
class People:
    """Who there is, and who may sign. ``now_ms`` is the time of the block that is to come."""

    now_ms: int = 0
    members: dict[bytes, Member] = field(default_factory=dict)
    first_keys: set[bytes] = field(default_factory=set)
    later_keys: set[bytes] = field(default_factory=set)

    def found(self, address: bytes, key: bytes, roles: Iterable[str], registrar: bytes | None = None) -> None:
        self.members[address] = Member(address, key, tuple(roles), registrar)
        self.first_keys.add(key)

    def may_sign(self, tag: str, sender: bytes, cosigners: Sequence[bytes] = ()) -> Reasons:
        reasons: Reasons = set()
        for address in (sender, *cosigners):
            member = self.members.get(address)
            reasons |= gather((member is None, "signer_unknown"))
            reasons |= gather((member is not None and member.is_frozen, "participant_frozen"))
        needed = SIGNERS.get(tag)
        if needed is not None and sender in self.members and not needed & set(self.members[sender].roles):
            reasons.add("role_missing")
        return reasons

    def may_be_given(self, address: bytes) -> Reasons:
        """Who is not there, or frozen, is given nothing."""
        member = self.members.get(address)
        if member is None:
            return {"participant_unknown"}
        return gather((member.is_frozen, "participant_frozen"))

    def has_role(self, address: bytes, *roles: str) -> bool:
        return address in self.members and bool(set(roles) & set(self.members[address].roles))

    def register(
        self, sender: bytes, address: bytes, key: bytes, roles: tuple[str, ...], *, is_proven: bool
    ) -> Reasons:
        reasons = self.may_sign("participant.register", sender) | gather(
            (key in self.first_keys, "participant_already_registered"),
            (key in self.later_keys, "key_already_used"),
            (len(set(roles)) != len(roles), "role_named_twice"),
            (not is_proven, "key_possession_not_proven"),
            (not set(roles) <= CUSTOMERS and not self.has_role(sender, "admin"), "role_not_grantable_by_utility"),
        )
        if not reasons:
            self.found(address, key, roles, sender)
        return reasons

    def rotate_key(self, sender: bytes, key: bytes, *, is_proven: bool) -> Reasons:
        reasons = self.may_sign("participant.rotate_key", sender) | gather(
            (key in self.first_keys | self.later_keys, "key_already_used"),
            (not is_proven, "key_possession_not_proven"),
        )
        if not reasons:
            self.members[sender].key = key
            self.later_keys.add(key)
        return reasons

    def set_roles(self, sender: bytes, who: bytes, roles: tuple[str, ...]) -> Reasons:
        reasons = self.may_sign("participant.set_roles", sender)
        member = self.members.get(who)
        if member is None:
            return reasons | {"participant_unknown"}
        is_admin = self.has_role(sender, "admin")
        reasons |= gather(
            (len(set(roles)) != len(roles), "role_named_twice"),
            (who == sender, "roles_of_oneself"),
            (not is_admin and member.registrar != sender, "participant_of_another_registrar"),
            (not is_admin and not {*roles, *member.roles} <= CUSTOMERS, "role_not_grantable_by_utility"),
            (roles == member.roles, "roles_already_set"),
        )
        if not reasons:
            member.roles = roles
        return reasons

    def set_frozen(self, sender: bytes, who: bytes, *, is_frozen: bool) -> Reasons:
        reasons = self.may_sign("participant.freeze", sender)
        member = self.members.get(who)
        if member is None:
            return reasons | {"participant_unknown"}
        reasons |= gather(
            (is_frozen and who == sender, "freeze_of_oneself"),
            (member.is_frozen == is_frozen, "participant_not_open_to_this"),
        )
        if not reasons:
            member.is_frozen = is_frozen
        return reasons


@dataclass(eq=False)
class Credits(People):
    """Where every cent is."""

    balances: Counter[bytes] = field(default_factory=Counter)
    issued_cents: int = 0
    paid_out_cents: int = 0
    limits: dict[bytes, int] = field(default_factory=dict)  # issuer → the most that it may have outstanding
    outstanding: Counter[bytes] = field(default_factory=Counter)
    payment_references: set[tuple[bytes, str]] = field(default_factory=set)
    redemptions: list[Redemption] = field(default_factory=list)

    def lacks(self, holder: bytes, cents: int) -> Reasons:
        return gather((self.balances[holder] < cents, "credits_not_sufficient"))

    def pay(self, sender: bytes, recipient: bytes, cents: int) -> None:
        self.balances[sender] -= cents
        self.balances[recipient] += cents

    def issue(self, sender: bytes, holder: bytes, cents: int, reference: str) -> Reasons:
        reasons = self.may_sign("credit.issue", sender) | self.may_be_given(holder)
        if sender not in self.limits:
            return reasons | {"issuer_not_authorised"}
        reasons |= gather(
            ((sender, reference) in self.payment_references, "payment_reference_already_used"),
            (self.outstanding[sender] + cents > self.limits[sender], "issuer_limit_exceeded"),
        )
        if not reasons:
            self.outstanding[sender] += cents
            self.issued_cents += cents
            self.balances[holder] += cents
            self.payment_references.add((sender, reference))
        return reasons

    def transfer_credits(self, sender: bytes, recipient: bytes, cents: int) -> Reasons:
        reasons = self.may_sign("credit.transfer", sender) | self.may_be_given(recipient) | self.lacks(sender, cents)
        reasons |= gather((sender == recipient, "recipient_is_sender"))
        if not reasons:
            self.pay(sender, recipient, cents)
        return reasons

    def redeem(self, sender: bytes, issuer: bytes, cents: int) -> Reasons:
        reasons = self.may_sign("credit.redeem", sender) | self.lacks(sender, cents)
        reasons |= gather(
            (issuer not in self.members, "participant_unknown"),
            (issuer not in self.limits, "issuer_not_authorised"),
            (issuer in self.limits and cents > self.outstanding[issuer], "issuer_has_less_outstanding"),
        )
        if not reasons:
            self.balances[sender] -= cents
            self.redemptions.append(Redemption(sender, issuer, cents))
        return reasons

    def confirm_payout(self, sender: bytes, redemption: Redemption) -> Reasons:
        reasons = self.may_sign("credit.confirm_payout", sender) | gather(
            (redemption.status != "requested", "redemption_already_ended"),
            (redemption.holder == sender, "payout_to_oneself"),
        )
        if not reasons:
            redemption.status = "paid"
            self.outstanding[redemption.issuer] -= redemption.cents
            self.paid_out_cents += redemption.cents
        return reasons

    def fail_payout(self, sender: bytes, redemption: Redemption) -> Reasons:
        reasons = self.may_sign("credit.fail_payout", sender)
        reasons |= gather((redemption.status != "requested", "redemption_already_ended"))
        if not reasons:
            redemption.status = "failed"
            self.balances[redemption.holder] += redemption.cents
        return reasons
