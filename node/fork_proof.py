"""A fork proven to somebody who has no node: both final blocks, and the chain of trust to whoever signed them.

Owns the form of the proof (JSON, version 1), and the check that needs nothing but the genesis document. Whatever it
says of the guilty is worked out anew from the signatures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from consensus.messages import ChainContext
from consensus.validators import Validator, ValidatorSet
from ledger.errors import Malformed, Rejected
from ledger.fields import Json, Length, from_json
from ledger.genesis import GenesisDocument, compute_genesis_hash
from ledger.primitives import PublicKey
from node.certificates.format import VALIDATOR_CHANGES_MAX, ChainPart, ValidatorChange
from node.certificates.verify import follow_validators, verify_final
from node.forks import FinalHeader, list_signers_of_both

FORMAT: Final = "wattprint-fork"
VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class ForkProof:
    """Two final headers of one height. ``validator_changes`` lead from genesis to the set that decides it."""

    format: str
    version: int
    chain: ChainPart
    ours: FinalHeader
    theirs: FinalHeader
    validator_changes: Annotated[tuple[ValidatorChange, ...], Length(VALIDATOR_CHANGES_MAX)]


@dataclass(frozen=True, slots=True)
class Culprits:
    """What two certificates prove of whom. All of them signed both blocks, and they are at least f + 1.

    ``guilty``: in one round, which no honest validator does. ``suspects``: in two rounds; an honest one may have, if
    it was shown votes in between that let it change its mind. Which of these broke a rule, only prevotes tell.
    """

    guilty: tuple[Validator, ...]
    suspects: tuple[Validator, ...]


def read_proof(data: Json) -> ForkProof:
    """The proof of its JSON; whether it is true is another question. Raises ``Malformed``."""
    if type(data) is not dict or data.get("format") != FORMAT:
        raise Malformed("fork_proof_not_recognised", f"the field format is not {FORMAT}")
    if type(data.get("version")) is not int or data["version"] != VERSION:
        raise Malformed("fork_proof_version_unknown", f"only {VERSION} is known")
    return from_json(ForkProof, data)


def verify_proof(proof: ForkProof, genesis: GenesisDocument) -> Culprits:
    """Both blocks are final, by the same validators, and they are two.

    Raises ``Rejected``: ``fork_of_another_chain``, ``fork_of_two_heights``, ``fork_of_one_block``, and as a
    certificate of provenance does for its validators and its header.
    """
    context = ChainContext(genesis.chain_id, compute_genesis_hash(genesis))
    if (proof.chain.chain_id, proof.chain.genesis_hash) != (context.chain_id, context.genesis_hash):
        raise Rejected("fork_of_another_chain", proof.chain.chain_id)
    ours, theirs = proof.ours, proof.theirs
    if ours.header.height != theirs.header.height:
        raise Rejected("fork_of_two_heights", f"{ours.header.height} and {theirs.header.height}")
    if ours.compute_block_id() == theirs.compute_block_id():
        raise Rejected("fork_of_one_block", ours.compute_block_id().hex())
    validators = follow_validators(proof.validator_changes, genesis, context, height=ours.header.height)
    verify_final(ours.header, ours.commit, validators, context)
    theirs.verify(validators, context)
    return find_culprits(ours, theirs, validators)


def find_culprits(ours: FinalHeader, theirs: FinalHeader, validators: ValidatorSet) -> Culprits:
    """Who of the validators signed both of two final blocks of one height."""
    both = {PublicKey(key) for key in list_signers_of_both(ours, theirs)}
    named = tuple(member for member in validators.members if member.public_key in both)
    return Culprits(named, ()) if ours.commit.round == theirs.commit.round else Culprits((), named)
