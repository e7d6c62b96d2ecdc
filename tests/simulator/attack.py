"""A height of a cluster under attack: the stage of the puppets on whole nodes, and what is lost or cut at its moments.

The moves are those of the arena's scenarios; what puppets say goes through their masks, and through the bytes of the
wire. All of it ends when the cluster is healed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from consensus.messages import (
    Message,
    Proposal,
    SignedProposal,
    SignedVote,
    Status,
    Step,
    Vote,
)
from ledger.block import compute_block_id, encode_block
from ledger.execution import build_block
from ledger.primitives import Hash, Height
from node.core import Core
from p2p.messages import BlockRequest, Blocks, ConsensusMessage, PeerMessage, ProposalMessage
from tests.simulator.byzantine import Parcel
from tests.simulator.masks import NO_ROOT, Mask
from tests.simulator.puppets import PuppetMaster
from tests.simulator.scenario import Crash, Losses, SayProposal, SayVote
from tests.simulator.vote_log import decode_once

if TYPE_CHECKING:
    from tests.simulator.cluster import Cluster, Node


class Attack:
    """What happens at one height, by the moves of a storm; every node stands at that height when it begins."""

    def __init__(self, cluster: Cluster, height: Height, moves: Sequence[object], *, has_gossip: bool) -> None:
        self.height = height
        self.first_proposed: dict[int, dict[int, Hash]] = {}
        self.said: list[SignedVote] = []
        self.rounds = 1 + max((move.round for move in moves if isinstance(move, SayVote | SayProposal)), default=0)
        self._cluster = cluster
        self._has_gossip = has_gossip
        self._losses = Losses(moves)
        self._crashes = [move for move in moves if isinstance(move, Crash)]
        self._bodies: dict[Hash, tuple[int, bytes]] = {}
        self.highest_round = -1
        members = cluster.nodes[: len(cluster.genesis.validators)]
        self._puppets = PuppetMaster(self, height, moves, [node.key.public_key for node in members])

    @property
    def is_healed(self) -> bool:
        """Whether the faults have ended."""
        return self._cluster.is_healed

    def is_over(self) -> bool:
        """Whether every honest node has decided, or one has come through all rounds that the moves speak of."""
        is_decided = all(node.height >= self.height for node in self._cluster.honest)
        return is_decided or self.highest_round >= self.rounds

    # — what happens —

    def note_handled(self, node: Node) -> None:
        """A node is about to perform what follows from an input: its power may fail, its round may be a new one."""
        state = None if node.core is None else node.core._engine.state
        if state is None or state.height != self.height or state.step is Step.NEW_HEIGHT or self.is_healed:
            return
        here = (state.round, state.step)
        crash = next((one for one in self._crashes if one.node == node.number and here >= (one.round, one.step)), None)
        if crash is not None:
            self._crashes.remove(crash)
            node.effects_left, node.down_ms = crash.effects, crash.down_ms
        if node.is_honest and state.round > self.highest_round:
            self.highest_round = state.round
            self._puppets.play_round(state.round)

    def note_said(self, sender: int, message: PeerMessage) -> None:
        """Something leaves a node: puppets see all."""
        said = _read(message)
        key = self._cluster[sender].key.public_key
        if isinstance(said, SignedVote) and said.voter == key and said.vote.height == self.height:
            self.said.append(said)
        elif isinstance(said, SignedProposal) and said.proposal.height == self.height:
            assert isinstance(message, ProposalMessage)
            proposal = said.proposal
            self._bodies.setdefault(proposal.block_id, (proposal.time_ms, message.block_body))
            blocks = self.first_proposed.setdefault(proposal.height, {})
            if blocks.setdefault(proposal.round, proposal.block_id) == proposal.block_id:
                self._puppets.play_proposal(proposal.round)

    def loses(self, sender: int, receiver: int, message: PeerMessage) -> bool:
        """Whether a link loses a message: by a move, or because nobody tells where it stands."""
        if self.is_healed:
            return False
        said = _read(message)
        if not self._has_gossip and (isinstance(said, Status) or isinstance(message, Blocks | BlockRequest)):
            return True
        if said is None or _get_height(said) != self.height:
            return False
        return any((sender, receiver) in links for links in self._losses.list_links(said))

    # — the stage —

    def plan(self, delay_ms: int, action: Callable[[], None]) -> None:
        """Let something happen later."""
        self._cluster.timeline.plan(delay_ms, action)

    def invent_block(self, by: int, *, lead_ms: int, is_bad: bool) -> Hash | None:
        """A block of a puppet on the one before; none if no node stands there any more."""
        core = self._find_core(by)
        if core is None:
            return None
        key = self._cluster[by].key.public_key
        now_ms = self._cluster.timeline.now_ms + len(self._bodies)  # no two alike
        executed, _ = build_block(core.chain, core.mempool.list_transactions(), time_ms=now_ms, proposer=key)
        header = replace(executed.block.header, time_ms=now_ms + lead_ms)
        header = replace(header, state_root=NO_ROOT) if is_bad else header
        block_id = compute_block_id(header)
        self._bodies[block_id] = (header.time_ms, encode_block(replace(executed.block, header=header)))
        return block_id

    def get_block(self, block_id: Hash) -> tuple[int, bytes]:
        """The time and the body of a block that was proposed or invented."""
        return self._bodies[block_id]

    def make_vote(self, by: int, vote: Vote) -> SignedVote:
        """Sign with a puppet's key."""
        return self._get_mask(by).sign_vote(vote)

    def make_proposal(self, by: int, proposal: Proposal) -> SignedProposal:
        """Sign with a puppet's key."""
        return self._get_mask(by).sign_proposal(proposal)

    def carry_word(self, by: int, parcel: Parcel) -> None:
        """What a puppet says leaves it through its mask."""
        self._cluster.carry(by, self._get_mask(by).say(parcel))

    def _get_mask(self, number: int) -> Mask:
        mask = self._cluster[number].mask
        assert mask is not None, "puppets are Byzantine"
        return mask

    def _find_core(self, by: int) -> Core | None:
        nodes = [self._cluster[by], *self._cluster.nodes]
        return next((one.core for one in nodes if one.core is not None and one.height == self.height - 1), None)


def _read(message: PeerMessage) -> Message | None:
    match message:
        case ConsensusMessage(raw) | ProposalMessage(raw):
            return decode_once(raw)
        case _:
            return None


def _get_height(message: Message) -> int | None:
    match message:
        case SignedVote(vote):
            return vote.height
        case SignedProposal(proposal):
            return proposal.height
        case _:
            return getattr(message, "height", None)
