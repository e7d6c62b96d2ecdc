"""Questions about forks that this node has seen.

Owns the answer of ``chain_forks``: what is kept, who signed both blocks, and a proof for whoever has no node.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from consensus.validators import Validator
from ledger.fields import HashText, KeyText, Shown, to_json
from ledger.genesis import compute_genesis_hash
from node import chain_store
from node.certificates.format import ChainPart
from node.certificates.issue import list_validator_changes
from node.fork_proof import FORMAT, VERSION, Culprits, ForkProof, find_culprits
from node.forks import Fork, list_forks
from node.queries.view import TimeMs, View


class CulpritShown(TypedDict):
    """A validator that signed both blocks."""

    public_key: KeyText
    moniker: str


class CulpritsShown(TypedDict):
    """Who signed both blocks: in one round, or in two."""

    guilty: list[CulpritShown]
    suspects: list[CulpritShown]


class ForkRow(CulpritsShown):
    """Two final blocks of one height, and the proof."""

    height: int
    is_first: bool
    our_block_id: HashText
    their_block_id: HashText
    peer: KeyText
    seen_ms: TimeMs
    proof: Shown[ForkProof]


class ForkList(TypedDict):
    """Forks that this node has seen, the lowest height first."""

    forks: list[ForkRow]


def chain_forks(view: View) -> ForkList:
    """Forks that this node has seen: two blocks of one height, each final, with a proof; the lowest height first.

    ``guilty`` signed both in one round. ``suspects`` signed both in two rounds, which proves nothing of a single one.
    ``is_first``: the chains part at this height; otherwise at a lower one that could not be seen.
    """
    return {"forks": [_show(view, fork) for fork in list_forks(view.reader)]}


def show_culprits(culprits: Culprits) -> CulpritsShown:
    """Who signed both blocks, by key and moniker."""
    return {"guilty": _show_members(culprits.guilty), "suspects": _show_members(culprits.suspects)}


def _show(view: View, fork: Fork) -> ForkRow:
    genesis = chain_store.read_genesis_document(view.reader)
    chain = ChainPart(genesis.chain_id, compute_genesis_hash(genesis))
    changes = list_validator_changes(view, fork.height)
    validators = chain_store.read_validators_at(view.reader, fork.height)
    return {
        "height": fork.height,
        "is_first": fork.is_first,
        "our_block_id": fork.ours.compute_block_id().hex(),
        "their_block_id": fork.theirs.compute_block_id().hex(),
        "peer": fork.peer.hex(),
        "seen_ms": fork.seen_ms,
        **show_culprits(find_culprits(fork.ours, fork.theirs, validators)),
        "proof": to_json(ForkProof(FORMAT, VERSION, chain, fork.ours, fork.theirs, changes)),
    }


def _show_members(members: Iterable[Validator]) -> list[CulpritShown]:
    return [{"public_key": one.public_key.hex(), "moniker": one.moniker} for one in members]
