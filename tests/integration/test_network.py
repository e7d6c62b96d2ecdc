"""Real networks on the loopback: peers find each other, talk, restart, and find each other again.

Every wait is for an event, with a limit; no test sleeps.
"""

from __future__ import annotations

import os
import socket

import pytest

from p2p.messages import ConsensusMessage, HeightStatus, ProposalMessage, Transactions, encode_frame
from p2p.peers import PeerAddress
from tests.integration.loopback import KEYS, NODES, Recorder, consortium, get_address, make_network, raw_peer, running


async def test_three_nodes_find_each_other_and_learn_heights_and_names() -> None:
    async with consortium() as (networks, handlers):
        assert set(handlers[0].ups) == {(KEYS[1], 42), (KEYS[2], 42)}
        infos = {info.public_key: info for info in networks[0].peers()}
        assert infos[KEYS[1]].moniker == "node-2"
        assert infos[KEYS[2]].listen_port == networks[2].port
        assert not infos[KEYS[1]].is_dialled_by_us
        assert [standing.is_connected for standing in networks[2].standings()] == [True, True]


async def test_a_broadcast_reaches_all_but_the_excepted_and_is_counted() -> None:
    async with consortium() as (networks, handlers):
        vote, batch = ConsensusMessage(b"vote"), Transactions((b"a", b"b"))
        assert networks[0].broadcast(vote) == 2
        assert networks[0].broadcast(batch, except_=KEYS[1]) == 1
        await handlers[2].wait_until(lambda: len(handlers[2].messages) == 2)
        await handlers[1].wait_until(lambda: len(handlers[1].messages) == 1)
        assert {message for _, message in handlers[2].messages} == {vote, batch}
        assert handlers[1].messages == [(KEYS[0], vote)]
        sent = {info.public_key: info.sent for info in networks[0].peers()}
        assert sent[KEYS[2]]["Transactions"].count == 1
        assert "Transactions" not in sent[KEYS[1]]
        assert sent[KEYS[1]]["ConsensusMessage"].size_bytes == len(encode_frame(vote))


async def test_a_large_proposal_and_many_small_messages_arrive_whole_and_in_order() -> None:
    async with consortium() as (networks, handlers):
        proposal = ProposalMessage(b"p", bytes(range(256)) * 4 * 4096)  # 4 MiB
        votes = [ConsensusMessage(b"%d" % n) for n in range(2_000)]
        assert networks[0].send(KEYS[1], proposal)
        assert all(networks[0].send(KEYS[1], vote) for vote in votes)
        await handlers[1].wait_until(lambda: len(handlers[1].messages) == 2_001)
        assert [message for _, message in handlers[1].messages] == [proposal, *votes]


async def test_sending_to_a_peer_that_is_not_connected_says_so() -> None:
    network = make_network(NODES[0], Recorder())
    async with running(network):
        assert not network.send(KEYS[1], HeightStatus(1))
        assert network.broadcast(HeightStatus(1)) == 0


async def test_two_nodes_that_dial_each_other_end_with_one_connection_that_works_both_ways() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    first, second = Recorder(), Recorder()
    earlier = make_network(NODES[0], first, known=[PeerAddress(KEYS[1], "127.0.0.1", port)])
    async with running(earlier):
        later = make_network(NODES[1], second, port=port, known=[get_address(earlier, KEYS[0])])
        # What was queued on a connection that lost to its twin is gone: a node speaks again whenever a peer comes up.
        first.greet = lambda key: earlier.send(key, HeightStatus(1))
        second.greet = lambda key: later.send(key, HeightStatus(2))
        async with running(later):
            await first.wait_until(lambda: (KEYS[1], HeightStatus(2)) in first.messages)
            await second.wait_until(lambda: (KEYS[0], HeightStatus(1)) in second.messages)
            await first.wait_for_peers(KEYS[1])
            await second.wait_for_peers(KEYS[0])


async def test_a_second_connection_of_the_same_dialler_replaces_the_first() -> None:
    handler = Recorder()
    network = make_network(NODES[0], handler)
    async with running(network), raw_peer(network, NODES[1]) as old, raw_peer(network, NODES[1]) as new:
        await old.shake_hands()
        await handler.wait_for_peers(KEYS[1])
        await new.shake_hands()
        assert await old.read_farewell() == "duplicate_connection"
        assert handler.ups == [(KEYS[1], 0), (KEYS[1], 0)]
        assert handler.downs == [(KEYS[1], "duplicate_connection")]
        await new.ws.send_bytes(encode_frame(HeightStatus(1)))
        await handler.wait_until(lambda: handler.messages == [(KEYS[1], HeightStatus(1))])


async def test_a_node_that_restarts_is_found_again_without_help() -> None:
    async with consortium() as (networks, handlers):
        port = networks[0].port
        await networks[0].stop()
        await handlers[1].wait_for_peers(KEYS[2])
        await handlers[2].wait_for_peers(KEYS[1])
        assert (KEYS[0], "shutting_down") in handlers[1].downs
        reborn_handler = Recorder()
        reborn = make_network(NODES[0], reborn_handler, port=port)  # it knows nobody: the others redial
        async with running(reborn):
            await reborn_handler.wait_for_peers(KEYS[1], KEYS[2])
            await handlers[1].wait_for_peers(KEYS[0], KEYS[2])
            assert reborn.broadcast(HeightStatus(5)) == 2
            await handlers[2].wait_until(lambda: (KEYS[0], HeightStatus(5)) in handlers[2].messages)


async def test_a_port_in_use_is_an_error_at_start() -> None:
    first = make_network(NODES[0], Recorder())
    async with running(first):
        second = make_network(NODES[1], Recorder(), port=first.port)
        with pytest.raises(OSError, match=r"(?i)address already in use"):
            await second.start()


async def test_a_key_that_is_no_longer_allowed_is_disconnected_and_stays_out() -> None:
    allowed = list(KEYS)
    handler, guest_handler = Recorder(), Recorder()
    network = make_network(NODES[0], handler, allowed=allowed)
    async with running(network):
        guest = make_network(NODES[1], guest_handler, known=[get_address(network, KEYS[0])])
        async with running(guest):
            await handler.wait_for_peers(KEYS[1])
            allowed.remove(KEYS[1])
            network.recheck_allowed()
            await guest_handler.wait_until(lambda: (KEYS[0], "stranger") in guest_handler.downs)
            async with raw_peer(network, NODES[1]) as raw:
                with pytest.raises(AssertionError, match="stranger"):
                    await raw.shake_hands()


async def test_a_peer_that_vanishes_without_a_word_goes_down() -> None:
    handler = Recorder()
    network = make_network(NODES[0], handler)
    async with running(network), raw_peer(network, NODES[1]) as raw:
        await raw.shake_hands()
        await handler.wait_for_peers(KEYS[1])
        with socket.socket(fileno=os.dup(raw.ws.get_extra_info("socket").fileno())) as connected:
            connected.shutdown(socket.SHUT_RDWR)
        await handler.wait_until(lambda: handler.downs == [(KEYS[1], "connection_lost")])
