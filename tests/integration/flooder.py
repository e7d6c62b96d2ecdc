"""A process of permitted peers gone bad: each floods every node of a test network with one type of message, for ever.

Run as ``python -m tests.integration.flooder DIRECTORY [KIND…]``; it stops when it is killed. It says ``flooding`` once
every flooder has got in somewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import aiohttp

from consensus.codec import encode_message
from consensus.messages import Status, Step
from contracts_native.credits import TransferCredits
from ledger.genesis import GenesisDocument, compute_genesis_hash
from ledger.primitives import Hash, Height
from node.client import Client
from node.client_forms import sign_payload
from node.keystore import SigningKey
from node.launch import read_genesis_file
from node.readiness import HOST
from node.testnet import Testnet
from p2p.messages import (
    BlockRequest,
    Blocks,
    ConsensusMessage,
    HeightStatus,
    ProposalMessage,
    Transactions,
    encode_frame,
)
from p2p.session import LocalNode
from p2p.tls import PeerTls
from tests.integration.loopback import RawPeer
from tests.p2p.dialogue import make_local

KINDS: Final = (
    "transactions_rubbish",
    "transactions_of_strangers",
    "transactions_that_no_rule_lets_pass",
    "transactions_expired",
    "consensus_rubbish",
    "consensus_status",
    "proposal",
    "block_request",
    "blocks",
    "height_status",
    "frame_rubbish",
    "ping",
)
SEEDS: Final = {kind: 100 + i for i, kind in enumerate(KINDS)}
FLOODER_KEYS: Final = tuple(make_local(seed).public_key for seed in SEEDS.values())
SIGNED: Final = 1_000
WINDOW_BLOCKS: Final = 900  # less than a transaction's lifetime, and longer than a flood
BATCH: Final = 100
REDIAL_SECONDS: Final = 0.05
NICENESS: Final = 10  # the flooders' own work is done on other machines than the nodes'


def make_frames(kind: str, document: GenesisDocument, poor: SigningKey, height: int) -> list[bytes]:
    """What a kind of flooder sends, over and over, from a height of the chain on."""
    late = height + WINDOW_BLOCKS
    match kind:
        case "transactions_rubbish":
            return [encode_frame(Transactions((b"\xff" * 300,) * BATCH))]
        case "transactions_of_strangers":
            return make_transactions(document, SigningKey.from_seed(b"s" * 32), poor, valid_until=late)
        case "transactions_that_no_rule_lets_pass":
            return make_transactions(document, poor, SigningKey.from_seed(b"s" * 32), valid_until=late)
        case "transactions_expired":
            return make_transactions(document, poor, SigningKey.from_seed(b"s" * 32), valid_until=max(1, height - 1))
        case "consensus_rubbish":
            return [encode_frame(ConsensusMessage(bytes(60_000)))]
        case "consensus_status":
            status = Status(Height(1), 0, Step.PREVOTE, False, (), ())  # so far behind that it is sent blocks
            return [encode_frame(ConsensusMessage(encode_message(status)))]
        case "proposal":
            return [encode_frame(ProposalMessage(b"proposal", bytes(2**20)))]
        case "block_request":
            return [encode_frame(BlockRequest(1, 64))]
        case "blocks":
            return [encode_frame(Blocks(((bytes(2**20), b"certificate"),)))]
        case "height_status":
            return [encode_frame(HeightStatus(10**9))]
        case "ping":
            return []
        case _:
            return [b"\x00" + bytes(1_000)]


def make_transactions(
    document: GenesisDocument, signer: SigningKey, recipient: SigningKey, *, valid_until: int
) -> list[bytes]:
    """Well-formed, truly signed, and worth nothing."""
    raws = [
        sign_payload(
            TransferCredits(recipient.address, 10**15, ""),
            chain_id=document.chain_id,
            valid_until=valid_until,
            salt=salt.to_bytes(8, "big"),
            signer=signer,
        ).raw
        for salt in range(SIGNED)
    ]
    return [encode_frame(Transactions(tuple(raws[i : i + BATCH]))) for i in range(0, SIGNED, BATCH)]


class Flooder:
    """One bad peer and its connection to one node."""

    def __init__(self, local: LocalNode, tls: PeerTls, port: int, frames: Sequence[bytes]) -> None:
        self._local = local
        self._tls = tls
        self._url = f"https://{HOST}:{port}/p2p"
        self._frames = frames
        self.got_in = asyncio.Event()

    async def run(self) -> None:
        """Flood, and come back whenever it is thrown out."""
        connector = aiohttp.TCPConnector(ssl=self._tls.dialling)
        async with aiohttp.ClientSession(connector=connector) as client:
            while True:
                with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, AssertionError, TypeError):
                    async with client.ws_connect(self._url, max_msg_size=0) as ws:
                        await self._flood(ws)
                await asyncio.sleep(REDIAL_SECONDS)

    async def _flood(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        peer = RawPeer(ws, self._local, self._tls.read_channel(ws.get_extra_info("ssl_object")))
        await peer.shake_hands()
        self.got_in.set()
        reading = asyncio.create_task(self._read(ws))
        try:
            while not ws.closed and not reading.done():
                for frame in self._frames:
                    await ws.send_bytes(frame)
                if not self._frames:
                    await ws.ping(bytes(100))
                await asyncio.sleep(0)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        async for _ in ws:
            pass


async def main(directory: Path, kinds: Sequence[str]) -> None:
    """Flood every node of the network with these kinds."""
    net = Testnet.open(directory)
    document = read_genesis_file(net.genesis_path)
    chain_id, genesis_hash = document.chain_id, Hash(compute_genesis_hash(document))
    async with Client(net.get_url(0)) as client:
        height = int((await client.chain_status())["height"])
    flooders = []
    for kind in kinds:
        local = make_local(SEEDS[kind], chain_id=chain_id, genesis_hash=genesis_hash)
        tls = PeerTls(local)
        tls.trust(validator.public_key for validator in document.validators)
        frames = make_frames(kind, document, net.load_key("consumer2"), height)
        flooders += [Flooder(local, tls, node.p2p_port, frames) for node in net.list_nodes()]
    os.nice(NICENESS)
    async with asyncio.TaskGroup() as tasks:
        for flooder in flooders:
            tasks.create_task(flooder.run())
        for flooder in flooders:
            await flooder.got_in.wait()
        sys.stdout.write("flooding\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2:] or KINDS))
