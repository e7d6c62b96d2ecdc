"""A node that is far behind its peers takes no submissions, and no single peer can talk it into believing so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consensus.parameters import ConsensusParameters
from contracts_native.table import load_table
from ledger.genesis import GenesisDocument, GenesisValidator
from ledger.primitives import PublicKey
from ledger.storage import MemoryStore
from node.chain_store import compute_genesis_batch
from node.core import LAG_BLOCKS_MAX, Core
from node.core_config import CoreConfig
from node.effects import Admission, Answer, WriteBlock
from node.inputs import MessageReceived, PeerDown, PeerUp, Started, Submitted, SyncedBlockDue
from node.jsonrpc import SYNCING
from node.keystore import SigningKey
from node.methods import SYNCING_REASON, explain
from node.sync import collect_blocks
from p2p.messages import Blocks, HeightStatus
from tests.node.fake_service import GENESIS_MS, UTILITY, make_fake_genesis, make_issue, sign_fake
from tests.node.recovery_chain import make_chain

VALIDATORS = [SigningKey.from_seed(bytes([value]) * 32).public_key for value in range(1, 5)]
OWN, *PEERS = VALIDATORS
FOLLOWERS = [PublicKey(bytes([value]) * 32) for value in range(70, 76)]
NOW_MS = GENESIS_MS + 1_000
BEHIND = LAG_BLOCKS_MAX + 1


def make_core(document: GenesisDocument | None = None) -> Core:
    if document is None:
        validators = tuple(GenesisValidator(key, f"node{i}") for i, key in enumerate(VALIDATORS))
        document = replace(make_fake_genesis(), validators=validators)
    batch = compute_genesis_batch(document, load_table())
    store = MemoryStore((key, value) for key, value in batch.items() if value is not None)
    config = CoreConfig(own_key=None, sign=None, consensus=ConsensusParameters())
    core = Core(config, store, load_table(), journal_frames=[])
    core.handle(Started(), NOW_MS)
    return core


def submit(core: Core) -> Admission:
    effects = core.handle(Submitted(1, (sign_fake(make_issue("p"), UTILITY).raw,)), NOW_MS)
    (answer,) = [effect for effect in effects if isinstance(effect, Answer)]
    return answer.admissions[0]


def test_a_node_that_is_far_behind_refuses_and_says_that_it_is_syncing() -> None:
    core = make_core()
    for peer in PEERS:
        core.handle(PeerUp(peer, BEHIND), NOW_MS)
    assert core.is_syncing
    error = submit(core).error
    assert error is not None
    assert error.reason == SYNCING_REASON
    assert explain(error).code == SYNCING


def test_a_node_that_is_a_few_blocks_behind_takes_submissions() -> None:
    core = make_core()
    for peer in PEERS:
        core.handle(PeerUp(peer, BEHIND - 1), NOW_MS)
    assert core.is_syncing
    assert submit(core).error is None


@pytest.mark.parametrize("liars", [PEERS[:1], FOLLOWERS, [PEERS[0], *FOLLOWERS]])
def test_as_many_as_may_lie_talk_nobody_into_syncing(liars: list[PublicKey]) -> None:
    core = make_core()
    for peer in (*PEERS, *liars):
        core.handle(PeerUp(peer, 0), NOW_MS)
    for liar in liars:
        core.handle(MessageReceived(liar, HeightStatus(10**9)), NOW_MS)
    assert not core.is_syncing
    assert submit(core).error is None


def test_a_node_with_a_single_peer_believes_it() -> None:
    core = make_core()
    core.handle(PeerUp(FOLLOWERS[0], BEHIND), NOW_MS)
    assert core.is_syncing


def test_blocks_that_wait_here_are_no_claim_of_a_peer_that_is_gone() -> None:
    net = make_chain(height=2)
    core = make_core(net.genesis)
    core.handle(PeerUp(PEERS[0], 2), NOW_MS)
    core.handle(MessageReceived(PEERS[0], Blocks(collect_blocks(net[0].store, 1, 1))), NOW_MS)
    core.handle(PeerDown(PEERS[0]), NOW_MS)
    effects = core.handle(SyncedBlockDue(), NOW_MS)
    assert [effect.height for effect in effects if isinstance(effect, WriteBlock)] == [1]
    core.handle(PeerUp(PEERS[1], 1 + BEHIND), NOW_MS)  # the only one that is there
    assert core.is_syncing
