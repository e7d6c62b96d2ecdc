"""A Byzantine whole node: what leaves it in the place of what its program says, and how it lies about blocks.

Its program is the honest one, with ledger, pool and store. Words of the consensus are twisted by `byzantine.py`, as
those of the bare engines are; the lies about blocks, heights and transactions are here. It has no key but its own. A
puppet's program is not heard while it is attacking: what it says instead is in the moves of the storm (`attack.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from consensus.codec import decode_message, encode_message
from consensus.messages import (
    VALID_ROUND_NONE,
    CommitCertificate,
    Message,
    PolkaCertificate,
    Prevote,
    Proposal,
    SignedProposal,
    SignedVote,
    Vote,
    compute_signed_bytes,
)
from ledger.block import compute_block_id, decode_block, encode_block
from ledger.execution import build_block
from ledger.primitives import Hash, Signature
from node.core import Core
from node.gossip import wrap_message
from p2p.messages import BlockRequest, Blocks, ConsensusMessage, PeerMessage, ProposalMessage, Transactions
from tests.simulator.byzantine import FORGED, REPLAYED, SPAM_VOTES, Bag, Parcel, twist
from tests.simulator.scenario import Behaviour, Corrupt

if TYPE_CHECKING:
    from tests.simulator.cluster import Cluster

REMEMBERED: Final = 200  # messages heard, of each sort
CLAIMED_BLOCKS: Final = 1_000  # that a liar says it is ahead
NO_ROOT: Final = Hash(bytes(32))

Parcels = list[tuple[frozenset[int], PeerMessage]]


class LiarsCore(Core):
    """The honest program, except that it may take a good block for a bad one."""

    lies: Mask

    def _is_valid(self, block_id: Hash, body: bytes) -> bool:
        return super()._is_valid(block_id, body) and not self.lies.denies_blocks()


class Mask:
    """All that one Byzantine node knows and does; ``corrupt`` are its behaviours."""

    def __init__(self, cluster: Cluster, number: int, corrupt: Iterable[Corrupt], *, is_puppet: bool = False) -> None:
        self.is_reformed = False  # lies no more
        self._cluster = cluster
        self._number = number
        self._is_puppet = is_puppet
        self._corrupt = tuple(corrupt)
        self._heard: deque[Message] = deque(maxlen=REMEMBERED)
        self._letters: deque[PeerMessage] = deque(maxlen=REMEMBERED)
        self._proposed: dict[int, Hash] = {}  # of the height under way, by round
        self._height = 0

    def get_core_type(self) -> type[Core]:
        """The program it runs."""
        return type("LiarsCoreOfOne", (LiarsCore,), {"lies": self})

    def claim_height(self, height: int) -> int:
        """What it tells of its height when it connects."""
        return height + CLAIMED_BLOCKS if self._draws(Behaviour.FORGE) else height

    def denies_blocks(self) -> bool:
        """Whether it takes the good block before it for a bad one."""
        return self._draws(Behaviour.LIE_ABOUT_VALIDITY) is not None

    def hear(self, message: PeerMessage) -> None:
        """Remember what it was sent, to send it again, to steal signatures, to know the blocks."""
        self._letters.append(message)
        for raw in _list_raw(message):
            said = decode_message(raw)
            self._heard.append(said)
            if isinstance(said, SignedProposal):
                self._note_proposal(said.proposal)

    def twist(self, to: frozenset[int], message: PeerMessage) -> Parcels:
        """What leaves in the place of one message."""
        if self.is_reformed or (self._is_puppet and self._cluster.attack is None):
            return [(to, message)]
        match message:
            case ConsensusMessage() | ProposalMessage() if self._is_puppet:
                return []
            case ConsensusMessage(raw):
                parcels = self._twist_words(Parcel(to, decode_message(raw)))
            case ProposalMessage(raw, body, polka):
                said = decode_message(raw)
                assert isinstance(said, SignedProposal)
                self._note_proposal(said.proposal)
                shown = decode_message(polka) if polka else None
                assert isinstance(shown, PolkaCertificate | None)
                parcels = self._twist_words(Parcel(to, said, body, shown))
                parcels += self._propose_bad_block(said, body)
            case Blocks() | Transactions() | BlockRequest():
                parcels = self._twist_service(to, message)
            case _:
                parcels = [(to, message)]
        return parcels + self._replay_letters()

    def say(self, parcel: Parcel) -> Parcels:
        """What leaves in the place of a word of the storm."""
        return self._twist_words(parcel)

    def sign_vote(self, vote: Vote) -> SignedVote:
        """A vote under its own key."""
        key = self._cluster[self._number].key
        return SignedVote(vote, key.public_key, key.sign(compute_signed_bytes(self._cluster.context, vote)))

    def sign_proposal(self, proposal: Proposal) -> SignedProposal:
        """A proposal under its own key."""
        key = self._cluster[self._number].key
        signature = key.sign(compute_signed_bytes(self._cluster.context, proposal))
        return SignedProposal(proposal, key.public_key, signature)

    def _draws(self, behaviour: Behaviour) -> Corrupt | None:
        """Its move of this kind, when the dice say that it is time for it."""
        if self.is_reformed or (self._is_puppet and self._cluster.attack is None):
            return None
        random = self._cluster.random
        for move in self._corrupt:
            if move.behaviour is behaviour and random.randrange(100) < move.percent:
                return move
        return None

    # — the words of the consensus —

    def _twist_words(self, parcel: Parcel) -> Parcels:
        core = self._cluster[self._number].core
        if core is None:
            return [(parcel.to, wrap_message(parcel.message, parcel.body, parcel.polka))]
        twisted = twist(self._build_bag(core), self._corrupt, parcel)
        return [(one.to, wrap_message(one.message, one.body, one.polka)) for one in twisted]

    def _build_bag(self, core: Core) -> Bag:
        key = self._cluster[self._number].key

        def make_block(time_ms: int) -> tuple[Hash, bytes]:
            pending = core.mempool.list_transactions()
            executed, _ = build_block(core.chain, pending, time_ms=time_ms, proposer=key.public_key)
            return executed.block_id, executed.body

        others = (member.public_key for member in core.validators.members if member.public_key != key.public_key)
        return Bag(
            key=key.public_key,
            others=tuple(others),
            chain_hash=core.context.compute_hash(),
            sign_vote=self.sign_vote,
            sign_proposal=self.sign_proposal,
            make_block=make_block,
            list_blocks=lambda: [block for _, block in sorted(self._proposed.items())],
            heard=self._heard,
            random=self._cluster.random,
        )

    def _note_proposal(self, proposal: Proposal) -> None:
        if proposal.height > self._height:
            self._height = proposal.height
            self._proposed.clear()
        if proposal.height == self._height:
            self._proposed[proposal.round] = proposal.block_id

    # — lies about blocks —

    def _propose_bad_block(self, said: SignedProposal, body: bytes) -> Parcels:
        """Beside its own proposal: one whose state does not follow, and its vote for it."""
        move = self._draws(Behaviour.LIE_ABOUT_VALIDITY)
        if move is None or said.proposer != self._cluster[self._number].key.public_key:
            return []
        block = decode_block(body)
        bad = replace(block, header=replace(block.header, state_root=NO_ROOT))
        proposal = replace(said.proposal, block_id=compute_block_id(bad.header))
        vote = Prevote(proposal.height, proposal.round, proposal.block_id, VALID_ROUND_NONE)
        return [
            (move.towards, wrap_message(self.sign_proposal(proposal), encode_block(bad), None)),
            (move.towards, wrap_message(self.sign_vote(vote), None, None)),
        ]

    # — catching up, and the pool —

    def _twist_service(self, to: frozenset[int], message: PeerMessage) -> Parcels:
        withheld = self._draws(Behaviour.WITHHOLD)
        if withheld is not None:
            to -= withheld.towards
        if isinstance(message, Blocks) and self._draws(Behaviour.FORGE) is not None:
            message = Blocks(tuple((block, _forge_certificate(raw)) for block, raw in message.items))
        spammed = self._draws(Behaviour.SPAM)
        flood: Parcels = []
        if spammed is not None and not isinstance(message, Blocks):  # nor in answer: two liars would flood for ever
            rubbish = self._cluster.random.randbytes(40)
            flood = [(spammed.towards, BlockRequest(1, 64)), (spammed.towards, Transactions((rubbish,)))] * SPAM_VOTES
        return [(to, message), *flood]

    def _replay_letters(self) -> Parcels:
        move = self._draws(Behaviour.REPLAY)
        if move is None:
            return []
        picked = self._cluster.random.sample(self._letters, min(REPLAYED, len(self._letters)))
        return [(move.towards, letter) for letter in picked]


def _list_raw(message: PeerMessage) -> list[bytes]:
    match message:
        case ConsensusMessage(raw) | ProposalMessage(raw):
            return [raw]
        case _:
            return []


def _forge_certificate(raw: bytes) -> bytes:
    """A certificate whose first signature is nobody's."""
    certificate = decode_message(raw)
    assert isinstance(certificate, CommitCertificate)
    first, *rest = certificate.signatures
    forged = replace(first, signature=Signature(FORGED))
    return encode_message(replace(certificate, signatures=(forged, *rest)))
