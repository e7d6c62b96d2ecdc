"""Targets of forks: what a peer answers when its chain is compared with ours, and the proof for whoever has no node."""

from __future__ import annotations

from functools import cache
from typing import Final

from consensus.light_client import verify_commit
from ledger.encoding import decode, encode
from ledger.errors import Malformed, Rejected
from node.certificates.format import read_text, write_text
from node.chain_store import read_validators_at
from node.effects import ForkSeen
from node.evidence import EvidencePool
from node.fork_proof import read_proof, verify_proof
from node.fork_watch import ForkWatch
from node.sync import Sync, collect_blocks
from tests.fuzz.target import Target
from tests.node.fork_chain import CONTEXT, DOCUMENT, VALIDATORS, Branch, make_fork
from tests.node.test_forks import make_proof

PEER: Final = VALIDATORS[3].public_key
HEIGHT: Final = 4
NOW_MS: Final = 1_700_000_100_000


@cache
def list_branches() -> tuple[Branch, Branch]:
    return make_fork(ours=1, theirs=1)


def take_answer(data: bytes) -> None:
    """A block and a certificate in answer to the check: an alarm only if a quorum signed another block than ours."""
    match decode(data):
        case (bytes() as block, bytes() as certificate):
            pass
        case _:
            raise Malformed("pair_malformed")
    ours, _ = list_branches()
    watch = ForkWatch(ours.store, CONTEXT, EvidencePool(), Sync())
    watch.note_peer(PEER, HEIGHT)
    assert len(watch.tick(NOW_MS)) == 1
    for effect in watch.take(PEER, ((block, certificate),), NOW_MS) or ():
        if isinstance(effect, ForkSeen):
            theirs = effect.fork.theirs
            assert theirs.compute_block_id() != ours.block_id(HEIGHT)
            verify_commit(theirs.make_certificate(CONTEXT), read_validators_at(ours.store, HEIGHT), CONTEXT)


def list_answer_seeds() -> list[bytes]:
    return [encode(pair) for branch in list_branches() for pair in collect_blocks(branch.store, HEIGHT, 1)]


def take_proof(data: bytes) -> None:
    """Whoever is named guilty signed two blocks: a changed proof names nobody else."""
    culprits = verify_proof(read_proof(read_text(data)), DOCUMENT)
    assert {one.moniker for one in (*culprits.guilty, *culprits.suspects)} <= {"v1", "v2"}


FORK_TARGETS: Final = (
    Target("fork-answer", take_answer, (Malformed,), list_answer_seeds),
    Target("fork-proof", take_proof, (Rejected,), lambda: [write_text(make_proof())]),
)
