"""A running copy of a validator in the arena, what may watch it, and signatures that cost nothing.

Owns what the arena and its judges share. The signatures are hashes: a stand-in, in this process only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final
from unittest.mock import patch

from consensus.effects import Decide, EvidenceFound, Halt, Refused
from consensus.engine import Engine
from consensus.messages import Message, compute_signed_bytes
from consensus.round import HeightState
from ledger.primitives import PublicKey, Signature
from tests.simulator.disk import SimulatedDisk
from tests.simulator.scenario import Corrupt, Crash

HOOKS: Final = ("on_sent", "on_handled", "on_decided", "on_evidence", "on_halt", "on_refused")
SIGNED_BYTES_REMEMBERED: Final = 4_096  # payloads; a scenario has a few hundred


def sign_fast(key: PublicKey, message: bytes) -> Signature:
    """A stand-in for a signature: whoever knows a key's name could make it, and no message of ours does."""
    return Signature(hashlib.blake2b(message, key=key).digest())


def is_valid_fast(key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `sign_fast` made it."""
    return hashlib.blake2b(message, key=key).digest() == signature


@contextmanager
def fast_signatures() -> Iterator[None]:
    """Inside, engines check signatures of `sign_fast`, and do not encode one payload again for each that checks it."""
    remembered = lru_cache(maxsize=SIGNED_BYTES_REMEMBERED)(compute_signed_bytes)
    with (
        patch("consensus.admission.is_valid_ed25519", is_valid_fast),
        patch("consensus.light_client.is_valid_ed25519", is_valid_fast),
        patch("consensus.admission.compute_signed_bytes", remembered),
    ):
        yield


@dataclass(slots=True, eq=False)
class Copy:
    """One running copy of a validator: its engine while it is up, its disk and all that it ever heard."""

    number: int
    index: int  # which validator
    key: PublicKey
    engine: Engine
    is_honest: bool
    offset_ms: int  # of its clock
    disk: SimulatedDisk  # its journal
    signed: set[Signature] = field(default_factory=set)  # all that its program ever signed
    chain: list[Decide] = field(default_factory=list)
    heard: list[Message] = field(default_factory=list)
    is_up: bool = True
    life: int = 0  # counts starts: timers of a former life are dead
    restarts_after_healing: int = 0
    crashes: list[Crash] = field(default_factory=list)
    corrupt: list[Corrupt] = field(default_factory=list)
    others: frozenset[int] = frozenset()  # the numbers of all other copies

    @property
    def state(self) -> HeightState:
        assert self.engine.state is not None
        return self.engine.state


class Watcher:
    """What an invariant may look at; each does nothing unless overridden."""

    def on_sent(self, copy: Copy, message: Message) -> None:
        """A message that a copy's program orders, once however many receive it."""

    def on_handled(self, copy: Copy) -> None:
        """An input was handled and all its effects performed."""

    def on_decided(self, copy: Copy, decide: Decide) -> None:
        """A copy decided, or took a decision from a peer."""

    def on_evidence(self, copy: Copy, found: EvidenceFound) -> None:
        """A copy found somebody guilty."""

    def on_halt(self, copy: Copy, halt: Halt) -> None:
        """A copy gave up."""

    def on_refused(self, sender: int, copy: Copy, refused: Refused) -> None:
        """A copy refused what validator ``sender`` sent."""
