"""The invariants of safety as judges of their own: each watches one promise and raises `Broken` when it fails.

Numbered as in docs/reliability.md. They judge messages, journals and decisions, with a reckoning of their own of
quorums and signatures, so that a bug in `consensus/` cannot hide itself. Judges of liveness: `liveness.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import ClassVar, Final

from consensus.effects import Decide, EvidenceFound, Halt, Refused
from consensus.engine import Engine
from consensus.inputs import HeightStarted, VoteReceived
from consensus.messages import (
    CommitCertificate,
    DuplicateProposal,
    Message,
    PolkaCertificate,
    Precommit,
    Prevote,
    Proposal,
    RoundCertificate,
    SignedProposal,
    SignedVote,
    Vote,
    list_certificate_votes,
)
from ledger.primitives import Hash, Height, PublicKey, sha256
from tests.consensus.harness import BAD, CONTEXT, KEYS
from tests.simulator.arena import PARAMETERS, Arena
from tests.simulator.broken import Broken
from tests.simulator.copies import Copy, Watcher
from tests.simulator.guilt import find_guilty, find_unjustified, is_amnesia
from tests.simulator.polkas import Quorums, compute_quorum, count_prevoters, find_claimed_polka, list_votes


class Judge(Watcher):
    """Watches one promise of one run."""

    promise: ClassVar[str]

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.count = arena.scenario.validators
        self.faulty = arena.scenario.faulty
        self.quorum = compute_quorum(self.count)

    def require(self, holds: bool, problem: str) -> None:
        """Raise if it does not hold."""
        if not holds:
            raise Broken(self.promise, problem)

    def is_genuine(self, signed: SignedVote) -> bool:
        """Whether a member signed this vote."""
        return find_index(signed.voter) < self.count and self.arena.is_signed(signed)


def find_index(key: PublicKey) -> int:
    """The validator of a key."""
    return next(index for index, known in enumerate(KEYS) if known.public == key)


class Agreement(Judge):
    """Safety 1: one block id per height."""

    promise = "agreement"

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self._decided: dict[int, Hash] = {}

    def on_decided(self, copy: Copy, decide: Decide) -> None:
        if copy.is_honest:
            first = self._decided.setdefault(decide.height, decide.block_id)
            self.require(first == decide.block_id, f"two blocks at height {decide.height}")


class Validity(Judge):
    """Safety 2: every decided block passes a full check; nobody halts."""

    promise = "validity"

    def on_decided(self, copy: Copy, decide: Decide) -> None:
        if copy.is_honest:
            self.require(sha256(decide.body) == decide.block_id, "the body is another block's")
            self.require(not decide.body.startswith(BAD), "an invalid block was decided")

    def on_halt(self, copy: Copy, halt: Halt) -> None:
        self.require(not copy.is_honest, f"node {copy.number} halted: {halt}")


class SignedOnce(Judge):
    """Safety 3: no honest program signs two payloads for one (height, round, type), crashes included."""

    promise = "signed once"

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self._first: dict[tuple[int, type[object], int, int], object] = {}

    def on_sent(self, copy: Copy, message: Message) -> None:
        payload = get_own_payload(copy, message)
        if payload is not None:
            slot = (copy.number, type(payload), payload.height, payload.round)
            first = self._first.setdefault(slot, payload)
            self.require(first == payload, f"node {copy.number}: {first} and {payload}")


class LockHolds(Judge):
    """Safety 4: a lock never goes back within a height, restarts included."""

    promise = "lock holds"

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self._locks: dict[int, tuple[int, int]] = {}  # (height, locked round)

    def on_handled(self, copy: Copy) -> None:
        state = copy.state
        lock = (state.height, state.locked_round)
        before = self._locks.get(copy.number, (0, -1))
        if lock != before:
            self.require(lock[0] > before[0] or lock >= before, f"node {copy.number}: {before} → {lock}")
            self._locks[copy.number] = lock


class PrecommitsJustified(Judge):
    """Safety 5: a precommit for a block means that its sender saw a quorum of prevotes for it."""

    promise = "precommits are justified"
    kind: ClassVar[type[Vote]] = Precommit

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self._justified: set[tuple[int, Vote]] = set()  # what a copy has heard, it has heard for ever
        self._own: dict[int, dict[SignedVote, None]] = {}  # prevotes of each copy, of its height

    def on_sent(self, copy: Copy, message: Message) -> None:
        payload = get_own_payload(copy, message)
        if not isinstance(message, SignedVote) or not isinstance(payload, Prevote | Precommit):
            return
        if isinstance(payload, Prevote):
            self._note_own(copy, message)
        polka = find_claimed_polka(payload) if type(payload) is self.kind else None
        if polka is not None and (copy.number, payload) not in self._justified:
            self._justified.add((copy.number, payload))
            votes = chain(self._own.get(copy.number, ()), *map(list_votes, copy.heard))
            seen = count_prevoters(votes, polka, self.is_genuine)
            self.require(seen >= self.quorum, f"node {copy.number} saw {seen} prevotes for {payload}")

    def _note_own(self, copy: Copy, signed: SignedVote) -> None:
        own = self._own.setdefault(copy.number, {})
        if own and next(iter(own)).vote.height != signed.vote.height:
            own.clear()
        own[signed] = None


class PrevotesJustified(PrecommitsJustified):
    """Safety 5, of prevotes: one that names a valid round means that its sender saw the quorum of that round."""

    promise = "prevotes are justified"
    kind = Prevote


class PolkasFollowCommits(Judge):
    """Safety 6: once a quorum can have precommitted v, no later round can have a polka for another value.

    "Can": the faulty are taken to have said whatever would complete a quorum. It holds with at most f of them.
    """

    promise = "polkas follow commits"

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self._quorums = Quorums()

    def on_sent(self, copy: Copy, message: Message) -> None:
        payload = get_own_payload(copy, message)
        if copy.is_honest and isinstance(payload, Prevote | Precommit):
            least = self.quorum - len(self.faulty)
            problem = self._quorums.find_conflict(payload, copy.index, honest_least=least)
            self.require(problem is None, f"{problem}")


class CertificatesVerify(Judge):
    """Safety 7: every certificate verifies under its height's set, with distinct signers."""

    promise = "certificates verify"

    def on_decided(self, copy: Copy, decide: Decide) -> None:
        named = (decide.certificate.height, decide.certificate.block_id)
        self.require(named == (decide.height, decide.block_id), "the certificate is for another block")
        self.require(decide.certificate.chain_hash == CONTEXT.compute_hash(), "the certificate is of another chain")
        self._verify(copy, list_certificate_votes(decide.certificate))

    def on_sent(self, copy: Copy, message: Message) -> None:
        if isinstance(message, PolkaCertificate):
            self._verify(copy, list_certificate_votes(message))

    def _verify(self, copy: Copy, votes: tuple[SignedVote, ...]) -> None:
        signers = {signed.voter for signed in votes if self.is_genuine(signed)}
        self.require(len(signers) == len(votes), f"node {copy.number}: signers repeated, or signatures wrong")
        self.require(len(signers) >= self.quorum, f"node {copy.number}: only {len(signers)} signers")


class DurableFirst(Judge):
    """Safety 8: nothing is sent before it is durable."""

    promise = "durable first"

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self._seen: set[tuple[int, bytes]] = set()

    def on_sent(self, copy: Copy, message: Message) -> None:
        if not isinstance(message, SignedVote | SignedProposal) or get_own_payload(copy, message) is None:
            return
        if (copy.number, message.signature) not in self._seen:
            self._seen.add((copy.number, message.signature))
            self.require(self.arena.is_durable(copy, message), f"node {copy.number}: {message}")


class NoHonestNodeBlamed(Judge):
    """Safety 10: evidence never names an honest node, nor does any message of one count as an attack.

    Amnesia is judged here as well: a prevote for another block than one's earlier precommit, without a later polka.
    """

    promise = "no honest node is blamed"

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self._precommits: dict[int, list[Precommit]] = {}
        self.named: set[int] = set()  # whom evidence has named

    def on_evidence(self, copy: Copy, found: EvidenceFound) -> None:
        evidence = found.evidence
        is_proposal = isinstance(evidence, DuplicateProposal)
        key = evidence.first.proposer if isinstance(evidence, DuplicateProposal) else evidence.first.voter
        index = find_index(key)
        self.named.add(index)
        self.require(index in self.faulty, f"node {copy.number} blames {index}; proposals: {is_proposal}")

    def on_refused(self, sender: int, copy: Copy, refused: Refused) -> None:
        self.require(sender in self.faulty or not copy.is_honest, f"{copy.number} refuses {sender}: {refused.reason}")

    def on_sent(self, copy: Copy, message: Message) -> None:
        payload = get_own_payload(copy, message)
        if isinstance(payload, Precommit) and payload.block_id is not None:
            kept = self._precommits.setdefault(copy.number, [])
            if kept and kept[0].height != payload.height:
                kept.clear()
            kept.append(payload)
        elif isinstance(payload, Prevote):
            for precommit in self._precommits.get(copy.number, []):
                self.require(not is_amnesia(precommit, payload), f"node {copy.number}: {precommit}, then {payload}")


class ForkNamesTheGuilty(Judge):
    """Safety 11: with more than f faulty and a fork, what honest nodes hold proves f + 1 guilty, and nobody else.

    The one judge of runs with too many faulty; the fork itself is no failure there. Two of the proofs are evidence by
    themselves (two votes in one slot, amnesia), and an engine that is told all that honest nodes hold must find them.
    The third needs all of them together: a prevote that names a polka of which no honest node holds the votes.
    """

    promise = "a fork names the guilty"

    def __init__(self, arena: Arena) -> None:
        super().__init__(arena)
        self._decided: dict[int, set[Hash]] = {}
        self.held: dict[SignedVote, None] = {}  # by honest nodes, in the order of hearing

    @property
    def is_forked(self) -> bool:
        """Whether two honest nodes decided differently."""
        return any(len(blocks) > 1 for blocks in self._decided.values())

    def on_sent(self, copy: Copy, message: Message) -> None:
        if copy.is_honest and isinstance(message, SignedVote) and get_own_payload(copy, message) is not None:
            self.held[message] = None

    def on_decided(self, copy: Copy, decide: Decide) -> None:
        if copy.is_honest:
            self._decided.setdefault(decide.height, set()).add(decide.block_id)
            self._hold(list_certificate_votes(decide.certificate))
            self._hold_heard(copy)

    def finish(self) -> None:
        """Judge all that honest nodes hold, as if they met now and told each other."""
        for copy in self.arena.copies:
            if copy.is_honest:
                self._hold_heard(copy)
        held = list(self.held)
        proven = {find_index(key) for key in find_guilty(held)}
        found = find_by_exchange(self.arena, held)
        self.require(proven == found, f"evidence of {sorted(found)}, proven are {sorted(proven)}")
        guilty = proven | {find_index(key) for key in find_unjustified(held, self.quorum)}
        self.require(guilty <= self.faulty, f"{sorted(guilty - self.faulty)} are innocent")
        least = (self.count - 1) // 3 + 1
        self.require(not self.is_forked or len(guilty) >= least, f"a fork, and only {sorted(guilty)} guilty")

    def _hold_heard(self, copy: Copy) -> None:
        for message in copy.heard:
            if isinstance(message, SignedVote):
                self._hold((message,))
            elif isinstance(message, PolkaCertificate | CommitCertificate | RoundCertificate):
                self._hold(list_certificate_votes(message))

    def _hold(self, votes: Iterable[SignedVote]) -> None:
        for signed in votes:
            if signed not in self.held and self.is_genuine(signed):
                self.held[signed] = None


class TimesRise(Judge):
    """Safety 12, as far as blocks without transactions can show it: times rise, and lie near some honest clock."""

    promise = "times rise"

    def on_decided(self, copy: Copy, decide: Decide) -> None:
        arena = self.arena
        if not copy.is_honest or decide.height != arena.scenario.first_height + len(copy.chain):
            return
        time_ms, made_ms, _ = arena.blocks[decide.block_id]
        if copy.chain:
            parent_ms = arena.blocks[copy.chain[-1].block_id][0]
            self.require(time_ms > parent_ms, f"{time_ms} after {parent_ms}")
        offsets = [other.offset_ms for other in arena.copies if other.is_honest]
        latest = arena.now_ms + max(offsets) + PARAMETERS.clock_skew_ms
        earliest = made_ms + min(offsets) - PARAMETERS.clock_skew_ms
        self.require(earliest <= time_ms <= latest, f"{time_ms} is not in {earliest}…{latest}")


def get_own_payload(copy: Copy, message: Message) -> Prevote | Precommit | Proposal | None:
    """What the message says in the name of this copy, if it signed it: the word of its twin it only passes on."""
    match message:
        case SignedVote(vote, _, signature) if signature in copy.signed:
            return vote
        case SignedProposal(proposal, _, signature) if signature in copy.signed:
            return proposal
        case _:
            return None


def find_by_exchange(arena: Arena, held: Iterable[SignedVote]) -> set[int]:
    """Whom an engine without a key names that is told these votes: what honest nodes find once they meet."""
    guilty: set[int] = set()
    by_height: dict[Height, list[SignedVote]] = {}
    for signed in held:
        by_height.setdefault(signed.vote.height, []).append(signed)
    for height, votes in by_height.items():
        engine = Engine(CONTEXT, PARAMETERS)
        engine.handle(HeightStarted(height, arena.validators, arena.now_ms, arena.now_ms))
        for signed in votes:
            for effect in engine.handle(VoteReceived(signed, arena.now_ms)):
                if isinstance(effect, EvidenceFound):
                    assert not isinstance(effect.evidence, DuplicateProposal), "only votes were told"
                    guilty.add(find_index(effect.evidence.first.voter))
    return guilty


SAFETY: Final[tuple[type[Judge], ...]] = (
    Agreement,
    Validity,
    SignedOnce,
    LockHolds,
    PrecommitsJustified,
    PrevotesJustified,
    PolkasFollowCommits,
    CertificatesVerify,
    DurableFirst,
    NoHonestNodeBlamed,
    TimesRise,
)
# Of a run with more than f faulty: what each honest program promises whatever the others do.
SAFETY_ALWAYS: Final[tuple[type[Judge], ...]] = (
    SignedOnce,
    LockHolds,
    PrecommitsJustified,
    PrevotesJustified,
    CertificatesVerify,
    DurableFirst,
)
