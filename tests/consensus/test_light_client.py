"""A certificate is believed only with a quorum of distinct members of the right set, on the right chain."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pytest

from consensus.light_client import HeaderLink, LightBlock, verify_chain, verify_commit
from consensus.messages import ChainContext, CommitCertificate, CommitSignature, Precommit
from consensus.validators import ValidatorSet
from ledger.errors import Rejected
from ledger.primitives import ZERO_HASH, Hash, Height, sha256
from tests.consensus.harness import CONTEXT, KEYS, build_validators

VALIDATORS: Final = build_validators(4)
ID: Final = sha256(b"block")


def certify(*signers: int, height: int = 8, block_id: Hash = ID) -> CommitCertificate:
    """A commit certificate of round 2 signed by these."""
    vote = Precommit(Height(height), 2, block_id)
    signatures = tuple(CommitSignature(KEYS[i].public, KEYS[i].vote(vote).signature) for i in signers)
    return CommitCertificate(CONTEXT.compute_hash(), Height(height), 2, block_id, signatures)


def refusal(certificate: CommitCertificate, context: ChainContext = CONTEXT) -> str:
    with pytest.raises(Rejected) as rejected:
        verify_commit(certificate, VALIDATORS, context)
    return rejected.value.reason


def test_quorum_of_distinct_members_is_believed() -> None:
    verify_commit(certify(0, 1, 2), VALIDATORS, CONTEXT)
    verify_commit(certify(3, 1, 2, 0), VALIDATORS, CONTEXT)


def test_certificate_at_fault_is_refused_by_name() -> None:
    good = certify(0, 1, 2)
    assert refusal(certify(0, 1)) == "certificate_signatures_too_few"
    assert refusal(certify(0, 1, 1)) == "certificate_signer_repeated"
    assert refusal(certify(0, 1, 2, 7)) == "certificate_signer_unknown"
    assert refusal(good, ChainContext("other", CONTEXT.genesis_hash)) == "certificate_of_another_chain"
    for wrong in (replace(good, round=3), replace(good, height=Height(9)), replace(good, block_id=sha256(b"x"))):
        assert refusal(wrong) == "certificate_signature_invalid"
    swapped = (replace(good.signatures[0], signature=good.signatures[1].signature), *good.signatures[1:])
    assert refusal(replace(good, signatures=swapped)) == "certificate_signature_invalid"


def test_one_bad_signature_spoils_a_certificate_even_beside_a_quorum() -> None:
    good = certify(0, 1, 2, 3)
    last = replace(good.signatures[3], signature=good.signatures[0].signature)
    assert refusal(replace(good, signatures=(*good.signatures[:3], last))) == "certificate_signature_invalid"


def build_chain() -> tuple[HeaderLink, list[LightBlock]]:
    """Genesis and three blocks; the set shrinks to its first three members from height 3 on."""
    smaller = ValidatorSet(VALIDATORS.members[:3])
    sets = [VALIDATORS, VALIDATORS, VALIDATORS, smaller, smaller]
    genesis = HeaderLink(Height(0), sha256(b"0"), ZERO_HASH, VALIDATORS.compute_hash(), VALIDATORS.compute_hash())
    blocks, parent = [], genesis.block_id
    for height in (1, 2, 3):
        block_id = sha256(b"%d" % height)
        hashes = sets[height].compute_hash(), sets[height + 1].compute_hash()
        header = HeaderLink(Height(height), block_id, parent, *hashes)
        blocks.append(LightBlock(header, certify(0, 1, 2, height=height, block_id=block_id), sets[height]))
        parent = block_id
    return genesis, blocks


def test_trust_is_carried_along_headers_over_a_change_of_validators() -> None:
    genesis, blocks = build_chain()
    last = verify_chain(blocks, CONTEXT, parent=genesis, validators_hash=VALIDATORS.compute_hash())
    assert last == blocks[2].header


def test_broken_chain_is_refused_by_name() -> None:
    genesis, blocks = build_chain()

    def reason(*changed: LightBlock) -> str:
        with pytest.raises(Rejected) as rejected:
            verify_chain(changed, CONTEXT, parent=genesis, validators_hash=VALIDATORS.compute_hash())
        return rejected.value.reason

    one, two, three = blocks
    assert reason(two) == "header_not_next"
    assert reason(one, replace(two, header=replace(two.header, parent_id=ID))) == "header_parent_differs"
    announced = replace(two.header, next_validators_hash=VALIDATORS.compute_hash())
    assert reason(one, replace(two, header=announced), three) == "validators_not_announced"
    assert reason(one, two, replace(three, validators=VALIDATORS)) == "validators_not_those_of_header"
    assert reason(replace(one, certificate=two.certificate)) == "certificate_of_another_block"
    few = certify(0, 1, height=3, block_id=three.header.block_id)
    assert reason(one, two, replace(three, certificate=few)) == "certificate_signatures_too_few"
