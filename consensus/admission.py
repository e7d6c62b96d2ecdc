"""The door: what peers send is checked here, once, and put into the height's state or refused.

A signature is verified only for what is new and would be kept. Nothing unverified ever changes the state.
"""

from __future__ import annotations

from consensus.effects import Broadcast, CheckBlock, Effect, EvidenceFound, Refused
from consensus.inbox import Inbox
from consensus.inputs import ProposalReceived, VoteReceived
from consensus.messages import (
    Certificate,
    ChainContext,
    DuplicateProposal,
    Payload,
    PolkaCertificate,
    SignedProposal,
    SignedVote,
    Step,
    VoteRequest,
    compute_signed_bytes,
    list_certificate_votes,
)
from consensus.round import (
    HeightState,
    KnownBlock,
    KnownProposal,
    has_polka_of_reproposal,
    is_fresh,
    list_wanted_blocks,
)
from consensus.votes import EVIDENCE_MAX, ROUNDS_AHEAD_MAX
from ledger.primitives import PublicKey, Signature, is_valid_ed25519


class Admission:
    """Checks signatures for one chain; keeps what is meant for the next height."""

    __slots__ = ("_context", "_proposal_evidence", "inbox")

    def __init__(self, context: ChainContext) -> None:
        self._context = context
        self.inbox = Inbox()
        self._proposal_evidence: dict[int, DuplicateProposal] = {}  # by round

    def start_height(self, state: HeightState, *, tick: int) -> list[Effect]:
        """Take in what came for this height while the one before was under way."""
        self._proposal_evidence.clear()
        proposals, votes = self.inbox.take_all()
        effects: list[Effect] = []
        for proposal in proposals:
            if proposal.proposal.proposal.height == state.height:
                effects += self._admit_proposal(state, proposal, tick=tick, is_verified=True)
        for vote in votes:
            if vote.vote.vote.height == state.height:
                effects += self._admit_vote(state, vote.vote, tick=tick, is_verified=True)
        return effects

    def receive_vote(self, state: HeightState, received: VoteReceived, *, tick: int) -> list[Effect]:
        """A single vote, of this height or the next; those of other heights are dropped."""
        if received.vote.vote.height != state.height + 1:
            return self._admit_vote(state, received.vote, tick=tick)
        if self.inbox.has_room_for_vote(received, state.validators):
            if not self.is_signed(received.vote.vote, received.vote.voter, received.vote.signature):
                return [Refused("vote_signature_invalid", received.vote.voter.hex())]
            self.inbox.keep_vote(received)
        return []

    def receive_certificate(self, state: HeightState, certificate: Certificate, *, tick: int) -> list[Effect]:
        """A bundle of votes. The rest of it is not looked at once one is refused."""
        effects: list[Effect] = []
        votes = list_certificate_votes(certificate)
        # Twice: a sender's third value is kept only once somebody else's vote for it is here.
        for signed in (*votes, *votes):
            found = self._admit_vote(state, signed, tick=tick)
            effects += found
            if any(isinstance(effect, Refused) for effect in found):
                break
        return effects

    def receive_proposal(self, state: HeightState, received: ProposalReceived, *, tick: int) -> list[Effect]:
        """A proposal with its body, of this height or the next."""
        signed = received.proposal
        height = signed.proposal.height
        if height == state.height and state.step is not Step.COMMIT:
            return self._admit_proposal(state, received, tick=tick)
        if height == state.height + 1 and self.inbox.has_room_for_proposal(signed.proposer, state.validators):
            if not self.is_signed(signed.proposal, signed.proposer, signed.signature):
                return [Refused("proposal_signature_invalid", signed.proposer.hex())]
            self.inbox.keep_proposal(received)
        return []

    def is_signed(self, payload: Payload, key: PublicKey, signature: Signature) -> bool:
        """Whether ``key`` signed ``payload`` for this chain."""
        return is_valid_ed25519(key, compute_signed_bytes(self._context, payload), signature)

    def _admit_vote(
        self, state: HeightState, signed: SignedVote, *, tick: int, is_verified: bool = False
    ) -> list[Effect]:
        if signed.vote.height != state.height:
            return []
        index = state.validators.find_index(signed.voter)
        if index is None:
            return [Refused("voter_unknown", signed.voter.hex())]
        if state.votes.is_known(index, signed):
            return []
        if not is_verified and not self.is_signed(signed.vote, signed.voter, signed.signature):
            return [Refused("vote_signature_invalid", signed.voter.hex())]
        evidence = state.votes.add(index, signed, current_round=state.round, tick=tick)
        return [] if evidence is None else [EvidenceFound(evidence)]

    def _admit_proposal(
        self, state: HeightState, received: ProposalReceived, *, tick: int, is_verified: bool = False
    ) -> list[Effect]:
        signed = received.proposal
        proposal = signed.proposal
        if not _is_proposal_of_use(state, signed):
            return []
        if state.validators.get_proposer(state.height, proposal.round).public_key != signed.proposer:
            return [Refused("proposer_unexpected", signed.proposer.hex())]
        if not is_verified and not self.is_signed(proposal, signed.proposer, signed.signature):
            return [Refused("proposal_signature_invalid", signed.proposer.hex())]
        index = state.validators.find_index(signed.proposer)
        assert index is not None
        state.votes.note_round(index, proposal.round)
        effects = self._take_polka(state, signed, received.polka, tick=tick)
        first = state.proposals.setdefault(proposal.round, KnownProposal(signed, received.now_ms)).signed
        if first.proposal != proposal:
            effects += self._note_duplicate(first, signed)
            if proposal.block_id not in list_wanted_blocks(state):
                return effects
        if proposal.block_id not in state.blocks:
            state.add_block(proposal.block_id, KnownBlock(signed, received.body, valid=None))
            effects.append(CheckBlock(state.height, proposal.block_id, proposal.time_ms, received.body))
        return effects

    def _take_polka(
        self, state: HeightState, signed: SignedProposal, polka: PolkaCertificate | None, *, tick: int
    ) -> list[Effect]:
        effects = [] if polka is None else self.receive_certificate(state, polka, tick=tick)
        if not is_fresh(signed.proposal) and not has_polka_of_reproposal(state, signed.proposal):
            effects.append(Broadcast(VoteRequest(state.height, signed.proposal.valid_round)))
        return effects

    def _note_duplicate(self, first: SignedProposal, second: SignedProposal) -> list[Effect]:
        round_ = first.proposal.round
        if round_ in self._proposal_evidence or len(self._proposal_evidence) >= EVIDENCE_MAX:
            return []
        self._proposal_evidence[round_] = DuplicateProposal(first, second)
        return [EvidenceFound(self._proposal_evidence[round_])]


def _is_proposal_of_use(state: HeightState, signed: SignedProposal) -> bool:
    """Not held already, and neither too far ahead nor, unless its block is wanted, too long ago."""
    proposal = signed.proposal
    known = state.proposals.get(proposal.round)
    if known is not None and known.signed == signed and proposal.block_id in state.blocks:
        return False
    if abs(proposal.round - state.round) <= ROUNDS_AHEAD_MAX:
        return True
    return proposal.round < state.round and proposal.block_id in list_wanted_blocks(state)
