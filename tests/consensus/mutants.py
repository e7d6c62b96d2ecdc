"""Deliberate bugs: each is one named change of a small predicate, applied in memory for the length of a ``with``.

The suite must catch every one (`test_mutants.py`); one that survives shows a hole in the tests, not in the engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Final
from unittest.mock import patch

from consensus import journal
from consensus import round as rules
from consensus.effects import Effect, Persist
from consensus.height import HeightRun
from consensus.journal import BodyFrame, JournalState, StateFrame
from consensus.messages import (
    Amnesia,
    ChainContext,
    DuplicateVote,
    PolkaCertificate,
    Proposal,
    SignedProposal,
    SignedVote,
    Step,
    VoteKind,
    get_vote_kind,
)
from consensus.parameters import ConsensusParameters
from consensus.recorder import Recorder
from consensus.round import CastPrevote, Commit, HeightState, KnownProposal, LockAndPrecommit, Transition
from consensus.signer import Signer, SignFunction
from consensus.validators import ValidatorSet
from consensus.votes import Value, VoteBook
from ledger.primitives import Hash, Height, PublicKey

_LIVENESS: Final = frozenset({"all decide", "laggards catch up", "recovery after crashes"})
_resume = HeightRun._resume
_finish = HeightRun.finish
_apply_frame = journal._apply
_is_timely = rules.is_timely
_answer_reproposal = rules._answer_reproposal


@dataclass(frozen=True, slots=True)
class Mutant:
    """A deliberate bug. ``budget``: how many scenarios may be needed to catch it; ``promises``: which may break.

    With ``family`` they are scenarios of that family, else those that the suite plays, in its order.
    """

    name: str
    apply: Callable[[], AbstractContextManager[object]]
    budget: int
    promises: frozenset[str]
    family: str | None = None


def _swap(*changes: tuple[str, object]) -> Callable[[], AbstractContextManager[object]]:
    def apply() -> AbstractContextManager[object]:
        stack = ExitStack()
        for target, new in changes:
            stack.enter_context(patch(target, new))
        return stack

    return apply


def _swap_rule(old: Callable[..., object], new: object) -> Callable[[], AbstractContextManager[object]]:
    """Replace a rule in the table of transitions, or take it out if ``new`` is None."""
    kept = [new if rule is old else rule for rule in rules.TABLE]
    return _swap(("consensus.round.TABLE", tuple(rule for rule in kept if rule is not None)))


def _is_always_open_to_fresh(_state: HeightState, _block_id: Hash) -> bool:
    return True


def _is_always_open_to_reproposal(_state: HeightState, _proposal: Proposal) -> bool:
    return True


def _resume_without_lock(run: HeightRun, recorded: JournalState) -> None:
    _resume(run, replace(recorded, locked_round=-1, locked_block=None))


def _lock_on_first_prevotes(state: HeightState) -> Transition | None:
    """L36 without counting: what we prevote, we precommit."""
    known = state.proposals.get(state.round)
    if state.step is not Step.PREVOTE or known is None or state.valid_round == state.round:
        return None
    block_id = known.signed.proposal.block_id
    has_some = state.votes.count_voters(state.round, VoteKind.PREVOTE, block_id) > 0
    return LockAndPrecommit(block_id) if has_some and state.is_block_valid(block_id) else None


def _keep_no_polkas(_recorder: Recorder, _state: HeightState) -> list[PolkaCertificate]:
    return []


def _lock_without_polka() -> AbstractContextManager[object]:
    # The engine asserts that the polka it journals is one: silenced, so that the judges must find it.
    stack = ExitStack()
    stack.enter_context(_swap_rule(rules.find_polka, _lock_on_first_prevotes)())
    stack.enter_context(patch("consensus.recorder.Recorder._list_polkas", _keep_no_polkas))
    stack.enter_context(patch("consensus.height.find_polka_of", _find_no_polka))
    return stack


def _find_no_polka(_state: HeightState, _signed: SignedProposal) -> PolkaCertificate | None:
    return None


def _quorum_minus_one(count: int) -> int:
    return max(count - (count - 1) // 3 - 1, 1)


def _constant_timeout(parameters: ConsensusParameters, step: Step, _round: int) -> int:
    return parameters.propose_timeout_ms if step is Step.PROPOSE else parameters.vote_timeout_ms


def _finish_sending_first(run: HeightRun) -> list[Effect]:
    effects = _finish(run)
    persisted = [effect for effect in effects if isinstance(effect, Persist)]
    return [effect for effect in effects if not isinstance(effect, Persist)] + list(persisted)


def _has_polka_on_its_word(_state: HeightState, proposal: Proposal) -> bool:
    return proposal.valid_round < proposal.round


class CarelessVoteBook(VoteBook):
    """Counts the votes that arrive, not the senders they come from."""

    __slots__ = ("_arrived",)

    def __init__(self, validators: ValidatorSet) -> None:
        super().__init__(validators)
        self._arrived: Counter[tuple[int, VoteKind, Value]] = Counter()

    def add(self, index: int, signed: SignedVote, *, current_round: int, tick: int) -> DuplicateVote | Amnesia | None:
        found = super().add(index, signed, current_round=current_round, tick=tick)
        round_, kind, value = signed.vote.round, get_vote_kind(signed.vote), signed.vote.block_id
        self._arrived[round_, kind, value] += 1
        values = self._quorums.setdefault((round_, kind), [])
        if self._arrived[round_, kind, value] >= self.validators.quorum and value not in values:
            values.append(value)
        return found


def _is_never_known(*_: object) -> bool:
    return False


def _is_always_timely(_state: HeightState, _known: KnownProposal) -> bool:
    return True


def _answer_reproposal_by_the_clock(state: HeightState, known: KnownProposal) -> Transition | None:
    answer = _answer_reproposal(state, known)
    return CastPrevote(None, -1) if answer is not None and not _is_timely(state, known) else answer


def _is_polka_of_any_age_enough(_state: HeightState, proposal: Proposal) -> bool:
    return proposal.valid_round >= 0


def _find_commit_of_this_round(state: HeightState) -> Transition | None:
    found = rules.find_commit(state)
    return found if isinstance(found, Commit) and found.round == state.round else None


def _is_never_invalid(state: HeightState, block_id: Hash) -> bool | None:
    return True if block_id in state.blocks else None


def _is_signed_by_anybody(*_: object) -> bool:
    return True


def _apply_every_body(state: JournalState, frame: StateFrame, bodies: Iterable[BodyFrame]) -> JournalState:
    return replace(_apply_frame(state, frame, ()), blocks=(*state.blocks, *bodies))


def _sign_anew(
    context: ChainContext, height: Height, own_key: PublicKey, sign: SignFunction, _recorded: object
) -> Signer:
    return Signer(context, height, own_key, sign, ())


def _find_end_without_sums(data: bytes, start: int) -> int | None:
    """A record is whole if its length fits into the file."""
    head = data[start : start + 4]
    end = start + 13 + int.from_bytes(head, "big") + 1
    return end if len(head) == 4 and end <= len(data) else None


def _is_never_torn(_data: bytes, _start: int, *, name: str) -> bool:
    return not name


# The list of the design, in its order; then what else a reader of the paper gets wrong.
MUTANTS: Final = (
    Mutant(
        "ignore_lock",
        _swap(
            ("consensus.round.is_lock_open_to_fresh", _is_always_open_to_fresh),
            ("consensus.round.is_lock_open_to_reproposal", _is_always_open_to_reproposal),
        ),
        budget=32,
        promises=frozenset({"no honest node is blamed", "polkas follow commits", "agreement"}),
    ),
    Mutant(
        "forget_lock_on_restart",
        _swap(("consensus.height.HeightRun._resume", _resume_without_lock)),
        budget=64,
        promises=frozenset({"lock holds"}),
    ),
    Mutant(
        "skip_polka_check",
        _lock_without_polka,
        budget=4,
        promises=frozenset({"precommits are justified"}),
    ),
    Mutant(
        "quorum_minus_one",
        _swap(("consensus.validators.compute_quorum", _quorum_minus_one)),
        budget=4,
        promises=frozenset({"precommits are justified", "certificates verify"}),
    ),
    Mutant(
        "no_jump_at_f_plus_one",
        _swap_rule(rules.find_skip, None),
        budget=64,
        promises=frozenset({"rounds come together"}),
    ),
    Mutant(
        "constant_timeouts",
        _swap(("consensus.parameters.ConsensusParameters.compute_timeout_ms", _constant_timeout)),
        budget=64,
        promises=_LIVENESS,
    ),
    Mutant(
        "journal_after_send",
        _swap(("consensus.height.HeightRun.finish", _finish_sending_first)),
        budget=4,
        promises=frozenset({"durable first"}),
    ),
    Mutant(
        "accept_reproposal_without_its_polka",
        _swap(
            ("consensus.round.has_polka_of_reproposal", _has_polka_on_its_word),
            ("consensus.admission.has_polka_of_reproposal", _has_polka_on_its_word),
        ),
        budget=160,
        promises=frozenset({"prevotes are justified"}),
    ),
    Mutant(
        "count_a_sender_twice",
        _swap(
            ("consensus.height.VoteBook", CarelessVoteBook),
            ("consensus.votes.VoteBook.is_known", _is_never_known),
        ),
        budget=16,
        promises=frozenset({"precommits are justified", "prevotes are justified", "certificates verify"}),
    ),
    Mutant(
        "no_time_check_at_all",
        _swap(("consensus.round.is_timely", _is_always_timely)),
        budget=64,
        promises=frozenset({"times rise"}),
    ),
    Mutant(
        "time_check_on_reproposals",
        _swap(("consensus.round._answer_reproposal", _answer_reproposal_by_the_clock)),
        budget=64,
        promises=_LIVENESS,
    ),
    Mutant(
        "older_polka_opens_the_lock",
        _swap(("consensus.round.is_lock_open_to_reproposal", _is_polka_of_any_age_enough)),
        budget=96,
        promises=frozenset({"no honest node is blamed", "polkas follow commits", "agreement"}),
    ),
    Mutant(
        "decide_in_the_current_round_only",
        _swap_rule(rules.find_commit, _find_commit_of_this_round),
        budget=160,
        promises=_LIVENESS,
    ),
    Mutant(
        "take_every_block_for_valid",
        _swap(("consensus.round.HeightState.is_block_valid", _is_never_invalid)),
        budget=240,
        promises=frozenset({"validity"}),
    ),
    Mutant(
        "trust_every_signature",
        _swap(("consensus.admission.Admission.is_signed", _is_signed_by_anybody)),
        budget=160,
        promises=frozenset({"certificates verify", "precommits are justified", "prevotes are justified"}),
    ),
    Mutant(
        "speak_of_every_body_in_the_journal",
        _swap(("consensus.journal._apply", _apply_every_body)),
        budget=96,
        promises=frozenset({"signed once"}),
        family="crashes",
    ),
    Mutant(
        "forget_what_was_signed_on_restart",
        _swap(("consensus.engine.Signer", _sign_anew)),
        budget=64,
        promises=_LIVENESS | {"signed once"},
        family="crashes",
    ),
    Mutant(
        "believe_a_torn_record",
        _swap(("node.journal._find_record_end", _find_end_without_sums)),
        budget=640,
        promises=frozenset({"CorruptStore", "JournalCorrupt"}),
        family="crashes",
    ),
    Mutant(
        "stop_at_every_torn_record",
        _swap(("node.journal._is_torn", _is_never_torn)),
        budget=16,
        promises=frozenset({"JournalCorrupt"}),
        family="crashes",
    ),
)
