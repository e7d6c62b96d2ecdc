"""What is on its way to peers: transactions collected for a moment and sent together, and how a vote is wrapped.

Owns the batching and the wrapping only; who sends what, and when again, is decided in `core.py` and `mempool.py`.
"""

from __future__ import annotations

from typing import Final

from consensus.codec import encode_message
from consensus.messages import Message, PolkaCertificate, SignedProposal
from p2p.messages import ConsensusMessage, PeerMessage, ProposalMessage, Transactions

DELAY_MS: Final = 20  # collects what comes in close together into one message
MESSAGE_BYTES_MAX: Final = 1024 * 1024
MESSAGE_ITEMS_MAX: Final = 5_000


class GossipBuffer:
    """What waits for the next sending."""

    def __init__(self) -> None:
        self._items: list[bytes] = []

    def add(self, raw: bytes) -> bool:
        """Collect one more; whether it is the first, so that a timer must be set."""
        self._items.append(raw)
        return len(self._items) == 1

    def take_messages(self) -> list[Transactions]:
        """Everything collected, in messages of a bearable size."""
        messages: list[Transactions] = []
        batch: list[bytes] = []
        size = 0
        for raw in self._items:
            if batch and (size + len(raw) > MESSAGE_BYTES_MAX or len(batch) == MESSAGE_ITEMS_MAX):
                messages.append(Transactions(tuple(batch)))
                batch, size = [], 0
            batch.append(raw)
            size += len(raw)
        if batch:
            messages.append(Transactions(tuple(batch)))
        self._items = []
        return messages


def wrap_message(message: Message, body: bytes | None, polka: PolkaCertificate | None) -> PeerMessage:
    """A message of the consensus as it goes on the wire; a proposal travels with its body."""
    if isinstance(message, SignedProposal):
        assert body is not None, "a proposal travels with its body"
        return ProposalMessage(encode_message(message), body, b"" if polka is None else encode_message(polka))
    return ConsensusMessage(encode_message(message))
