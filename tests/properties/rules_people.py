"""Rules of people, their credits, their papers and their places."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from hypothesis.stateful import rule

from contracts_native.amendments import AmendSite
from contracts_native.credits import ConfirmPayout, FailPayout, IssueCredits, RedeemCredits, TransferCredits
from contracts_native.documents import (
    AnchorDocument,
    DocumentAnchored,
    DocumentKind,
    GrantDocument,
    RetireDocument,
    RevokeDocument,
    SetEncryptionKey,
    WrappedKey,
)
from contracts_native.kyc import Citation, DecideKyc, KycDecision
from contracts_native.meters import Channel, ResumeMeter, RetireMeter, RotateMeterKey, SuspendMeter
from contracts_native.participants import (
    FreezeParticipant,
    RegisterParticipant,
    Role,
    RotateKey,
    SetRoles,
    UnfreezeParticipant,
    make_possession_message,
    make_rotation_message,
)
from contracts_native.sites import Technology
from ledger.primitives import Address
from tests.contracts_native.harness import (
    ADMIN,
    ALICE,
    AUDITOR,
    BOB,
    CAROL,
    CHAIN_ID,
    DAY_0_MS,
    FULFILMENT,
    UTILITY,
    make_person,
)
from tests.contracts_native.test_documents import make_paper, make_x25519
from tests.properties.machine import LUCK, NEWCOMERS, SMALL_W, WRONG, Ground, Luck, N, pick

MINUTE_MS: Final = 60_000
SITES_MAX: Final = 6
METERS_MAX: Final = 7
ROLE_SETS: Final = (
    (Role.CONSUMER,),
    (Role.INVESTOR, Role.PROSUMER),
    (Role.UTILITY,),
    (Role.CONSUMER, Role.CONSUMER),
    (Role.MEASUREMENT_BODY, Role.INSTITUTION),
)
TRADERS: Final = (ALICE, BOB, CAROL)


class PeopleRules(Ground):
    """Who comes, who is frozen, who gets another key; what is paid in and out."""

    @rule(which=N, luck=LUCK)
    def membership(self, which: int, luck: Luck) -> None:
        rules = [self.freeze, self.register_participant, self.rotate_key, self.set_roles]
        pick(rules, which)(luck)

    @rule(which=N, luck=LUCK)
    def credits(self, which: int, luck: Luck) -> None:
        rules = [self.issue_credits, self.transfer_credits, self.redeem_credits]
        if self.model.redemptions:
            rules.append(self.end_redemption)
        pick(rules, which)(luck)

    def register_participant(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        person = pick(NEWCOMERS, n)
        by = self.rightly(pick((UTILITY, ADMIN), n // 2).address, odd, n)
        roles = ROLE_SETS[0] if odd < 10 else pick(ROLE_SETS, n)
        vouched = by if odd != WRONG else ADMIN.address
        possession = person.sign(make_possession_message(CHAIN_ID, vouched, person.public_key))
        reasons = self.model.register(by, person.address, person.public_key, roles, is_proven=vouched == by)
        self.expect(RegisterParticipant(person.public_key, possession, roles, "new"), reasons, by=by)

    def rotate_key(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        by = self.someone(n)
        new = make_person(f"key {n % 5}") if odd < WRONG else pick((*TRADERS, *NEWCOMERS), odd)
        about = by if odd != 12 else UTILITY.address
        possession = new.sign(make_rotation_message(CHAIN_ID, about, new.public_key))
        reasons = self.model.rotate_key(by, new.public_key, is_proven=about == by)
        if self.expect(RotateKey(new.public_key, possession), reasons, by=by) is not None:
            self.rotate(by, new)

    def set_roles(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        by = self.rightly(pick((ADMIN, UTILITY), n).address, odd, n)
        here = [one.address for one in NEWCOMERS if one.address in self.model.members]
        who = pick(here, n // 2) if here and odd < 11 else self.someone(n)
        roles = pick(ROLE_SETS, n // 4)
        reasons = self.model.set_roles(by, who, tuple(roles))
        self.expect(SetRoles(who, roles), reasons, by=by)

    def freeze(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        frozen = [address for address, one in self.model.members.items() if one.is_frozen]
        by = self.rightly(AUDITOR.address, odd, n)
        if odd == 12 or (frozen and odd):  # mostly free again, lest nothing happens any more
            who = Address(pick(frozen, n)) if frozen and odd != 12 else self.someone(n)
            reasons = self.model.set_frozen(by, who, is_frozen=False)
            self.expect(UnfreezeParticipant(who, "cleared"), reasons, by=by)
        else:
            who = self.someone(n)
            reasons = self.model.set_frozen(by, who, is_frozen=True)
            self.expect(FreezeParticipant(who, "under suspicion"), reasons, by=by)

    def issue_credits(self, luck: Luck) -> None:
        n, cut, odd = luck.n, luck.cut, luck.odd
        by = self.rightly(UTILITY.address, odd, n)
        holder = pick(TRADERS, n).address if odd < 11 else self.someone(n)
        reference = self.next_text() if odd != 12 else "1"
        cents = 1 + cut if odd != 11 else 10**6
        reasons = self.model.issue(by, holder, cents, reference)
        self.expect(IssueCredits(holder, cents, reference), reasons, by=by)

    def transfer_credits(self, luck: Luck) -> None:
        n, cut, odd = luck.n, luck.cut, luck.odd
        by, cents = self.rightly(pick(TRADERS, n).address, odd, n), 1 + cut
        recipient = self.someone(n // 7)
        reasons = self.model.transfer_credits(by, recipient, cents)
        self.expect(TransferCredits(recipient, cents, ""), reasons, by=by)

    def redeem_credits(self, luck: Luck) -> None:
        n, cut, odd = luck.n, luck.cut, luck.odd
        cents = 1 + cut // 2
        by, issuer = pick(TRADERS, n).address, self.rightly(UTILITY.address, odd, n)
        reasons = self.model.redeem(by, issuer, cents)
        applied = self.expect(RedeemCredits(issuer, cents), reasons, by=by)
        if applied is not None:
            self.model.redemptions[-1].id = applied.make_id("redemption")

    def end_redemption(self, luck: Luck) -> None:
        n, cut, odd = luck.n, luck.cut, luck.odd
        by, redemption = self.rightly(FULFILMENT.address, odd, n), pick(self.model.redemptions, -1 - n)
        if cut % 2:
            reasons = self.model.confirm_payout(by, redemption)
            self.expect(ConfirmPayout(redemption.id, "wire"), reasons, by=by)
        else:
            reasons = self.model.fail_payout(by, redemption)
            self.expect(FailPayout(redemption.id, "account closed"), reasons, by=by)


class PlaceRules(Ground):
    """Sites and meters come and change."""

    @rule(which=N, luck=LUCK)
    def places(self, which: int, luck: Luck) -> None:
        rules = [self.set_shares, self.amend_site, self.rotate_meter_key, self.suspend_meter, self.retire_meter]
        if any(one.status == "suspended" for one in self.model.meters):
            rules += [self.suspend_meter] * 3
        rules += [self.register_site] * (len(self.model.sites) < SITES_MAX)
        rules += [self.register_meter] * (len(self.model.meters) < METERS_MAX)
        pick(rules, which)(luck)

    def register_site(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        owner = pick(TRADERS, n).address
        by = self.rightly(UTILITY.address, odd, n)
        cosigners = [owner] if odd != 12 and owner != by else []
        self.add_site(owner, pick(list(Technology), n), pick(("DE", "FR"), n), SMALL_W, by=by, cosigners=cosigners)

    def register_meter(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        length_s = pick((900, 3_600, 700), n // 3)
        site = pick(self.model.sites, -1 - n // 10)
        by = self.rightly(site.utility, odd, n)
        channels = [(one, SMALL_W, length_s) for one in Channel]
        chosen = pick((channels[:1], channels[1:], channels, [channels[0]] * 2), n)
        if odd == 11:
            chosen = [(one, 2 * capacity_w, length_s) for one, capacity_w, length_s in chosen]
        serial = f"N-{self.next_text()}" if odd != 9 else "M-1"
        key = self.make_key(serial if odd != 10 else "first 0")
        cosigners = [site.owner] if odd != 12 and site.owner != by else []
        since_ms = DAY_0_MS - MINUTE_MS if odd == 8 else DAY_0_MS
        self.add_meter(site, serial, chosen, by=by, cosigners=cosigners, key=key, since_ms=since_ms)

    def amend_site(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        site = pick(self.model.sites, n)
        by = self.rightly(site.utility, odd, n)
        latest_ms = max([0, *(one.last_end_ms for one in self.model.meters if one.site is site)])
        from_ms = max(latest_ms, site.looks[-1][0] + 1) + (n % 3 - 1) * 30 * MINUTE_MS
        zone = pick(("DE", "FR", None), n)
        capacity_w = pick((None, SMALL_W, SMALL_W // 2, 2 * SMALL_W), n // 2)
        efficiency = pick((None, None, 500, 1_000), n // 3) if site.technology == "storage" or odd == 11 else None
        now = site.now
        after = replace(
            now,
            zone=zone or now.zone,
            capacity_w=capacity_w or now.capacity_w,
            efficiency=efficiency or now.efficiency,
        )
        cosigners = [site.owner] if odd != 12 and site.owner != by else []
        payload = AmendSite(site.id, from_ms, zone, capacity_w, efficiency_per_mille=efficiency)
        reasons = self.model.amend_site(by, cosigners, site, from_ms, after, sets_efficiency=efficiency is not None)
        self.expect(payload, reasons, by=by, cosigners=cosigners)

    def set_shares(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        site = pick(self.model.sites, n)
        by = self.rightly(site.utility, odd, n)
        other = CAROL.address if odd < 11 and site.owner != CAROL.address else self.someone(n)
        first, second = (Address(site.owner), 1 + n % 5), (other, n // 5 % 4)
        shares = (first, second) if second[1] or odd == 10 else (first,)
        losers = {site.owner, *(holder for holder, _ in site.shares)} - {by}
        cosigners = sorted(losers) if odd != 12 else []
        self.share(site, shares, by=by, cosigners=cosigners)

    def suspend_meter(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        suspended = [one for one in self.model.meters if one.status == "suspended"]
        meter = pick(suspended if suspended and odd < 6 else self.model.meters, n)
        by = self.rightly(meter.utility, odd, n)
        from_ms = max(meter.last_end_ms, meter.since_ms) + (n % 80 - 20) * MINUTE_MS
        if odd == 12:
            from_ms = self.model.now_ms + 1
        if (meter.status == "suspended") == (odd < 10):
            reasons = self.model.resume(by, meter, from_ms)
            self.expect(ResumeMeter(meter.id, from_ms), reasons, by=by)
        else:
            reasons = self.model.suspend(by, meter, from_ms)
            self.expect(SuspendMeter(meter.id, from_ms, "under test"), reasons, by=by)

    def retire_meter(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        suspended = [one for one in self.model.meters if one.status == "suspended"]
        meter = pick(suspended or self.model.meters, -1 - n)
        by = self.rightly(meter.utility, odd, n)
        reasons = self.model.retire(by, meter)
        self.expect(RetireMeter(meter.id, "removed"), reasons, by=by)

    def rotate_meter_key(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        meter = pick(self.model.meters, n)
        by = self.rightly(meter.utility, odd, n)
        from_ms = max(meter.last_end_ms, meter.keys[-1][0] + 1) - (MINUTE_MS if odd == 11 else 0)
        key = self.make_key(f"later {self.next_text()}" if odd != 10 else "first 0")
        cosigners = [meter.site.owner] if odd != 12 and meter.site.owner != by else []
        reasons = self.model.rotate_meter_key(by, cosigners, meter, key, from_ms)
        self.expect(RotateMeterKey(meter.id, key, from_ms), reasons, by=by, cosigners=cosigners)


class PaperRules(Ground):
    """Documents, who can read them, and what is decided on them."""

    @rule(which=N, luck=LUCK)
    def papers(self, which: int, luck: Luck) -> None:
        rules = [self.anchor_document, self.set_encryption_key]
        if self.model.documents:
            rules += [self.grant_document, self.decide_kyc, self.supersede_document, self.revoke_document]
            rules += [self.decide_kyc, self.retire_document]
        pick(rules, which)(luck)

    def wrap(self, n: int, odd: int) -> tuple[WrappedKey, ...]:
        """A key for somebody who has an encryption key, and perhaps for another."""
        readers = [*map(Address, self.model.encryption_keys)] or [self.someone(n)]
        other = self.someone(n) if odd == 11 else pick(readers, n // 3)
        chosen = [pick(readers, n)]
        if n % 3 == 0 and (other not in chosen or odd == 11):
            chosen.append(other)
        keys = [self.model.encryption_keys.get(one, make_x25519("none")) for one in chosen]
        if odd == 12:
            keys = [make_x25519("another")] * len(chosen)
        return tuple(WrappedKey(one, key, bytes(80)) for one, key in zip(chosen, keys, strict=True))

    def set_encryption_key(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        by = pick((UTILITY.address, BOB.address, self.someone(n)), n)
        key = make_x25519(f"{n % 4}") if odd < WRONG else bytes(32)
        reasons = self.model.set_encryption_key(by, key)
        self.expect(SetEncryptionKey(key), reasons, by=by)

    def anchor_document(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        subject = pick([one for one in (BOB, ALICE, *NEWCOMERS) if one.address in self.model.members], n)
        paper = replace(make_paper(self.next_text(), subject=subject), grants=self.wrap(n, odd))
        if n % 4 == 3:
            site = pick(self.model.sites, n)
            paper = replace(paper, kind=DocumentKind.SITE_DESIGN, subject=None, site=site.id)
            by = self.rightly(pick((site.owner, site.utility), n // 4), odd, n)
        else:
            is_ours = self.model.members[subject.address].registrar == UTILITY.address
            by = self.rightly((UTILITY if is_ours and n % 2 else subject).address, odd, n)
        paper = self.spoil_paper(paper, n, odd)
        applied = self.expect(paper, self.model.anchor(by, paper, None), by=by)
        if applied is not None:
            self.model.documents[-1].id = applied.one(DocumentAnchored).document

    def spoil_paper(self, paper: AnchorDocument, n: int, odd: int) -> AnchorDocument:
        if odd == 11:
            return replace(paper, site=None if paper.site else self.model.sites[0].id)
        if odd == 10:
            return replace(paper, kind=pick(list(DocumentKind), n))
        return replace(paper, recipient=make_x25519("document 1")) if odd == 9 else paper

    def supersede_document(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        before = pick(self.model.documents, -1 - n)
        by = self.rightly(before.owner, odd, n)
        paper = replace(
            make_paper(self.next_text()),
            grants=self.wrap(n, odd),
            kind=DocumentKind(before.kind),
            subject=None if before.subject is None else Address(before.subject),
            site=before.site,
            supersedes=before.id,
        )
        if odd == 8:
            paper = replace(paper, cid=before.versions[-1])
        paper = self.spoil_paper(paper, n, odd)
        self.expect(paper, self.model.anchor(by, paper, before), by=by)

    def grant_document(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        document = pick(self.model.documents, -1 - n // 5)
        by, grants = self.rightly(document.owner, odd, n), self.wrap(n, odd)
        version = len(document.versions) if odd < 8 else 1 + n % 2
        reasons = self.model.grant(by, document, version, grants)
        self.expect(GrantDocument(document.id, version, grants), reasons, by=by)

    def revoke_document(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        document = pick(self.model.documents, -1 - n // 5)
        readers = [Address(reader) for _, reader in document.grants] or [BOB.address]
        reader = pick(readers, n)
        by = self.rightly(pick((document.owner, reader), n), odd, n)
        reasons = self.model.revoke(by, document, reader)
        self.expect(RevokeDocument(document.id, reader), reasons, by=by)

    def retire_document(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        document = pick(self.model.documents, n)
        by = self.rightly(document.owner, odd, n)
        reasons = self.model.retire_document(by, document)
        self.expect(RetireDocument(document.id), reasons, by=by)

    def decide_kyc(self, luck: Luck) -> None:
        n, odd = luck.n, luck.odd
        document = pick(self.model.documents, -1 - n // 5)
        by = self.rightly(UTILITY.address, odd, n)
        who = Address(document.subject) if document.subject is not None and odd < 11 else self.someone(n)
        version = len(document.versions) if odd < 11 else 1 + n % 3
        decision = pick(list(KycDecision), n)
        reasons = self.model.decide_kyc(by, who, decision.value, document, version)
        self.expect(DecideKyc(who, decision, Citation(document.id, version)), reasons, by=by)
