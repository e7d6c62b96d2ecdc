"""The network that is measured: fresh, on loopback, with funded accounts, watched until every node has committed.

Owns set-up and counting. A figure counts work that each validator has committed, as its own block subscription says.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from contracts_native.credits import IssueCredits
from ledger.fields import Json
from ledger.genesis import GenesisParticipant
from ledger.parameters import Parameters
from ledger.transaction import Payload, make_body, sign_transaction
from node.client import Client
from node.errors import LocalError
from node.keystore import SigningKey
from node.testnet import Testnet

ACCOUNTS: Final = 200
ACCOUNT_CENTS: Final = 10**9
VALID_FOR_BLOCKS: Final = 900
COMMIT_TIMEOUT_S: Final = 120
LOT_LIFETIME_S: Final = 30 * 366 * 86_400  # the demo's data are of 2016


class BenchError(LocalError):
    """The measurement does not count: ``load_refused``, ``bench_timed_out``."""


@dataclass(slots=True)
class Field:
    """A running network, its accounts, and a way to sign for them."""

    net: Testnet
    clients: list[Client]
    ports: list[int]
    accounts: list[SigningKey]
    utility: SigningKey
    chain_id: str
    valid_until: int = 0
    salts: int = 0

    def sign(self, payload: Payload, key: SigningKey, cosigners: Sequence[SigningKey] = ()) -> bytes:
        """A signed envelope, valid from now on for ``VALID_FOR_BLOCKS``."""
        self.salts += 1
        signers = [key, *cosigners]
        body = make_body(
            chain_id=self.chain_id,
            payload=payload,
            sender=key.address,
            valid_until=self.valid_until,
            salt=self.salts.to_bytes(8, "big"),
            cosigners=[one.address for one in cosigners],
        )
        return sign_transaction(body, [(one.public_key, one.sign) for one in signers])

    async def refresh(self) -> None:
        """Look at the head, so that what is signed from now on has a whole window before it."""
        status = await self.clients[0].chain_status()
        self.valid_until = status["height"] + VALID_FOR_BLOCKS

    async def submit_many(self, raws: Sequence[bytes]) -> None:
        """Submit through node 0 in batches and wait for each. Raises ``BenchError`` if any is refused."""
        for first in range(0, len(raws), 500):
            batch: list[Json] = [raw.hex() for raw in raws[first : first + 500]]
            params: dict[str, Json] = {
                "transactions": batch,
                "wait": "committed",
                "timeout_ms": COMMIT_TIMEOUT_S * 1000,
            }
            answers = await self.clients[0].request("tx_submit_many", params, timeout_ms=COMMIT_TIMEOUT_S * 1000)
            assert isinstance(answers, list)
            for answer in answers:
                if "error" in answer or answer.get("status") != "committed":
                    raise BenchError("load_refused", answer)


@contextlib.asynccontextmanager
async def open_field(*, validators: int, block_ms: int, directory: Path | None = None) -> AsyncIterator[Field]:
    """Start a fresh network and fund its accounts; everything is stopped and deleted at the end."""
    with TemporaryDirectory(prefix="wattprint-bench-") as temporary:
        accounts = [SigningKey.from_seed(f"bench account {i}".encode().ljust(32, b".")) for i in range(ACCOUNTS)]
        members = [GenesisParticipant(key.public_key, "account", ("consumer",), 0) for key in accounts]
        net = Testnet.create(
            directory or Path(temporary) / "net",
            validators=validators,
            block_ms=block_ms,
            base_port=0,
            parameters=replace(Parameters(), lot_lifetime_s=LOT_LIFETIME_S),
            extra_participants=members,
        )
        await net.start()
        clients = [Client(url) for url in net.urls]
        try:
            status = await clients[0].chain_status()
            ports = [int(url.rsplit(":", 1)[1]) for url in net.urls]
            field = Field(net, clients, ports, accounts, net.load_key("utility"), status["chain_id"])
            await field.refresh()
            fund = [IssueCredits(key.address, ACCOUNT_CENTS, f"bench {i}") for i, key in enumerate(accounts)]
            await field.submit_many([field.sign(payload, field.utility) for payload in fund])
            yield field
        finally:
            for client in clients:
                await client.close()
            await net.stop()


class Watch:
    """Counts what each validator commits from now on."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._counts = [0] * len(field.clients)
        self._expected = 0
        self._reached = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Watch:
        ready = [asyncio.Event() for _ in self._counts]
        self._tasks = [asyncio.create_task(self._follow(i, ready[i])) for i in range(len(self._counts))]
        for event in ready:
            await event.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def wait_for(self, transactions: int) -> None:
        """Until every validator has committed this many. Raises ``BenchError``."""
        self._expected = transactions
        self._check()
        try:
            await asyncio.wait_for(self._reached.wait(), COMMIT_TIMEOUT_S)
        except TimeoutError:
            raise BenchError("bench_timed_out", f"{self._counts} of {transactions} committed") from None

    async def _follow(self, index: int, ready: asyncio.Event) -> None:
        async with self._field.clients[index].subscribe("blocks") as blocks:
            ready.set()
            async for block in blocks:
                self._counts[index] += block["transactions"]
                self._check()

    def _check(self) -> None:
        if self._expected and min(self._counts) >= self._expected:
            self._reached.set()


def read_memory_mb(net: Testnet) -> list[int]:
    """Resident memory of each node's process, in MB (10⁶ bytes), as the kernel counts it."""
    sizes = []
    for node in net.list_nodes():
        status = Path(f"/proc/{node.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        sizes.append(int(line.split()[1]) * 1024 // 1_000_000)
    return sizes


def read_cpu_ms(net: Testnet) -> int:
    """Processor time that all running nodes have used so far, in ms: steadier than the clock on a shared machine."""
    ticks = 0
    for node in net.list_nodes():
        if node.pid is None:
            continue
        fields = Path(f"/proc/{node.pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks * 1000 // os.sysconf("SC_CLK_TCK")
