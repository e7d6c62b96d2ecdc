"""Rules of the council: what validators propose, vote on and report, and candidates that want to join."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from hypothesis.stateful import rule

from contracts_native.evidence import CHAIN_NAME, NONE, ReportEvidence, Statement, StatementKind
from contracts_native.governance import ParameterChange, Propose, ShowReadiness, Vote
from ledger.authorities import SignedChain
from ledger.primitives import Signature, sha256
from tests.contracts_native.council import make_change
from tests.contracts_native.harness import CHAIN_ID, Person
from tests.properties.machine import CANDIDATES, LUCK, VALIDATORS, WRONG, Ground, Luck, N, compute_fake_id, pick

EVERYBODY: Final = (*VALIDATORS, *CANDIDATES)
PARAMETERS: Final = (
    ParameterChange("zone_pairs", None, (("DE", "FR"),)),
    ParameterChange("lot_lifetime_s", 86_400, None),
    ParameterChange("matching_period_s", 1_800, None),
    ParameterChange("escrow_silence_s", 3_600, None),
    ParameterChange("dispute_deadline_s", 3_600, None),
    ParameterChange("reading_skew_s", 3_600, None),
    ParameterChange("reading_margin_percent", 150, None),
)
WRONG_PARAMETERS: Final = (ParameterChange("no_such", 1, None), ParameterChange("block_bytes_max", 1_024, None))
STATEMENT: Final = Statement(StatementKind.PREVOTE, 1, 0, sha256(b"a"), NONE, 0, Signature(bytes(64)))


class CouncilRules(Ground):
    """Who decides, and on what."""

    @rule(which=N, luck=LUCK)
    def council(self, which: int, luck: Luck) -> None:
        rules = [self.propose, self.report_evidence]
        if any(one.is_due for one in self.model.proposals):
            rules += [self.vote, self.vote, self.vote]
        elif self.model.proposals and luck.odd >= WRONG:
            rules.append(self.vote)
        if luck.odd >= WRONG or any(one.is_due and one.change.add_validator for one in self.model.proposals):
            rules += [self.show_readiness, self.show_readiness]
        pick(rules, which)(luck)

    def pick_validator(self, number: int, odd: int) -> Person:
        """One in force or, when things go wrong, somebody else."""
        some = [one for one in EVERYBODY if (one.public_key in self.model.validators) == (odd < WRONG)]
        return pick(some or EVERYBODY, number)

    def propose(self, luck: Luck) -> None:
        n, cut, odd = luck.n, luck.cut, luck.odd
        by = self.pick_validator(n, odd)
        height = self.world.height + (1 + cut % 3 if odd == 12 else 4 + cut % 15)
        change = self.make_change(height, cut, pick(EVERYBODY, n // 7), odd)
        reasons = self.model.propose(by.public_key, change)
        applied = self.expect(change, reasons, by=by.address)
        if applied is not None:
            self.model.proposals[-1].id = applied.make_id("proposal")

    def make_change(self, height: int, cut: int, about: Person, odd: int) -> Propose:
        joins = about.public_key not in self.model.validators
        if odd == 11:
            joins = not joins
        if odd == 10:
            return replace(make_change(height), parameters=(pick(WRONG_PARAMETERS, cut),) * (cut % 3))
        kinds = (
            make_change(height, add=about) if joins else make_change(height, remove=about),
            replace(make_change(height), parameters=(pick(PARAMETERS, cut // 3),)),
            make_change(height, version=1 + cut % 3),
        )
        return pick(kinds, cut if cut % 4 else 0)

    def vote(self, luck: Luck) -> None:
        n, cut, odd = luck.n, luck.cut, luck.odd
        still_open = [one for one in self.model.proposals if one.status == "open"]
        proposed = pick(still_open if still_open and odd < WRONG else self.model.proposals, cut)
        voted = proposed.approvals | proposed.refusals
        left = [one for one in VALIDATORS if one.public_key in self.model.validators and one.public_key not in voted]
        by = pick(left, n) if left and odd < 12 else self.pick_validator(n, odd)
        reasons = self.model.vote(by.public_key, proposed, approves=cut % 5 > 0)
        self.expect(Vote(proposed.id, approves=cut % 5 > 0), reasons, by=by.address)

    def show_readiness(self, luck: Luck) -> None:
        n, cut, odd = luck.n, luck.cut, luck.odd
        due = [one.change.add_validator for one in self.model.proposals if one.is_due]
        candidates = [one for one in EVERYBODY if one.public_key in due]
        by = pick(candidates, n) if candidates and odd < WRONG else pick(EVERYBODY, n)
        height = max(0, self.world.height - 1 - cut % 7) + (2 if odd == 12 else 0)
        block_id = compute_fake_id(height if odd != 11 else height + 1)
        reasons = self.model.show_readiness(by.public_key, height, is_right=odd != 11)
        self.expect(ShowReadiness(height, block_id), reasons, by=by.address)

    def report_evidence(self, luck: Luck) -> None:
        """Two prevotes, two precommits, or the same twice."""
        n, cut, odd = luck.n, luck.cut, luck.odd
        by, offender = self.pick_validator(n, odd), pick(EVERYBODY if odd > 10 else VALIDATORS, cut)
        kind = pick((StatementKind.PREVOTE, StatementKind.PRECOMMIT), n // 4)
        height = max(1, self.world.height - cut % 30) + (50 if odd == 12 else 0)
        first = replace(STATEMENT, kind=kind, height=height)
        second = first if odd == 11 else replace(first, block_id=None)
        chain = SignedChain(CHAIN_ID, CHAIN_NAME.get(self.world.state).genesis_hash)
        signed = [replace(one, signature=offender.sign(one.compute_bytes(chain))) for one in (first, second)]
        found = None if first == second else f"duplicate_{kind}"
        reasons = self.model.report_offence(by.public_key, offender.public_key, height, found)
        self.expect(ReportEvidence(offender.public_key, *signed), reasons, by=by.address)

    @rule(number=N)
    def somebody_is_away(self, number: int) -> None:
        """A validator misses its turns from now on, or nobody does."""
        self.world.absent = pick((*(one.public_key for one in VALIDATORS), None), number)
