"""Meters that run: the relay between its source, its outbox and a node; and the simulator against a clock.

Owns how orders are carried out, one after the other, and where the time comes from. What to do when is relay.py's and
simulator.py's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

from contracts_native.meters import Channel
from contracts_native.readings import Report, SubmitReadings
from node.client import Client, ClientError, NodeUnreachable, Refused
from node.errors import LocalError
from node.keystore import SigningKey
from node.meter_files.dsmr import Telegram
from node.meter_files.quantities import PICO_PER_WH
from node.meters.outbox import Outbox
from node.meters.relay import (
    ALREADY,
    NOT_YET,
    REFUSALS_MAX,
    Accepted,
    Answered,
    Ask,
    Forget,
    Input,
    Note,
    Order,
    RefusedBy,
    Relay,
    SaveEdge,
    SaveSealed,
    Sealed,
    Send,
    Showed,
    Unknown,
    Unseal,
    Woken,
)
from node.meters.reports import NEVER, MeterError, SigningMeter, Stand, advance_stand, compute_retry_ms, read_stands
from node.meters.simulator import Player
from node.meters.sources import Chunk
from node.meters.telegrams import Damaged, TelegramFeed

COMMIT_TIMEOUT_MS: Final = 30_000
READINGS_PAGE: Final = 1_000
INPUTS_HELD_MAX: Final = 100  # chunks of a source, before it has to wait


Inputs: TypeAlias = asyncio.Queue[Chunk | Input | LocalError | None]  # None: the source has ended


def get_now_ms() -> int:
    """The time of this machine."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Ledger:
    """The ledger through a node, for one meter; ``sender`` signs the transactions."""

    client: Client
    meter: SigningMeter
    sender: SigningKey

    async def ask(self, sealed: Sealed | None) -> Input:
        """Where the meter stands, and what is reported of a sealed report's time."""
        try:
            known = await self.client.meter_get(self.meter.meter.hex())
            reported = frozenset[int]() if sealed is None else await self._list_reported(sealed.report)
        except ClientError as error:
            return Unknown(str(error))
        return Answered(read_stands(known), reported)

    async def send(self, reports: Sequence[Report]) -> Input:
        """Submit reports in one transaction, and wait until it is final."""
        payload = SubmitReadings(tuple(reports))
        try:
            await self.client.submit(payload, key=self.sender, wait="committed", timeout_ms=COMMIT_TIMEOUT_MS)
        except Refused as error:
            return RefusedBy(error.reason, error.item)
        except ClientError as error:
            return Unknown(str(error))
        return Accepted()

    async def _list_reported(self, report: Report) -> frozenset[int]:
        starts: list[int] = []
        cursor: str | None = None
        while True:
            page = await self.client.reading_list(
                report.meter.hex(),
                channel=report.channel.value,
                from_ms=report.start_ms,
                until_ms=report.end_ms,
                limit=READINGS_PAGE,
                cursor=cursor,
            )
            starts += [row["start_ms"] for row in page["readings"]]
            cursor = page["next_cursor"]
            if cursor is None:
                return frozenset(starts)


async def find_meter(
    client: Client, meter: str, make: Callable[[str, dict[str, Any]], SigningMeter], say: Callable[[str], None]
) -> SigningMeter:
    """The meter as the ledger knows it, waiting for a node that is away. Raises ``RpcError`` and what ``make`` does."""
    failures = 0
    while True:
        try:
            status = await client.chain_status()
            return make(status["chain_id"], await client.meter_get(meter))
        except NodeUnreachable as error:
            failures += 1
            say(f"{error}; again in {compute_retry_ms(failures) // 1000} s")
            await asyncio.sleep(compute_retry_ms(failures) / 1000)


@dataclass(slots=True)
class Running:
    """A relay at work. ``is_over`` ends it: the source has ended and nothing waits any more."""

    relay: Relay
    outbox: Outbox
    ledger: Ledger
    feed: TelegramFeed
    point: str | None
    say: Callable[[str], None]

    async def run(self, source: AsyncIterator[Chunk]) -> None:
        """Relay until the source ends and the outbox is empty; a source that never ends needs a cancellation.

        Raises ``LocalError`` when the disk fails, and at the end for a source that broke.
        """
        try:
            await self._run(source)
        except ExceptionGroup as group:  # of one, since nothing but the disk fails in here
            failed = group.subgroup(LocalError)
            if failed is None:
                raise
            raise failed.exceptions[0] from None

    async def _run(self, source: AsyncIterator[Chunk]) -> None:
        inputs: Inputs = asyncio.Queue(maxsize=INPUTS_HELD_MAX)
        broken: LocalError | None = None
        has_source = True
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(_pump(source, inputs))
            self._carry_out(self.relay.handle(Woken(), get_now_ms()), tasks, inputs)
            while has_source or self.relay.waiting:
                one = await self._wait(inputs)
                if one is None or isinstance(one, LocalError):
                    has_source, broken = False, one
                elif isinstance(one, Chunk):
                    self._read(one, tasks, inputs)
                else:
                    self._carry_out(self.relay.handle(one, get_now_ms()), tasks, inputs)
            reading.cancel()
        if broken is not None:
            raise broken

    async def _wait(self, inputs: Inputs) -> Chunk | Input | LocalError | None:
        """The next input; or that it is time."""
        wake_ms = self.relay.next_wake_ms
        if wake_ms is None:
            return await inputs.get()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0, wake_ms - get_now_ms()) / 1000):
                return await inputs.get()
        return Woken()

    def _read(self, chunk: Chunk, tasks: asyncio.TaskGroup, inputs: Inputs) -> None:
        """Take some bytes in; when this returns, all that they said is on the disk."""
        found = self.feed.feed(chunk.data)
        if chunk.is_whole:
            found += self.feed.finish()
        for telegram in found:
            if isinstance(telegram, Damaged):
                self.say(f"a telegram was left out: {telegram.reason}")
                continue
            for showed in self._list_counters(telegram):
                self._carry_out(self.relay.handle(showed, get_now_ms()), tasks, inputs)
        chunk.acknowledge()

    def _list_counters(self, telegram: Telegram) -> list[Showed]:
        if self.point not in (None, telegram.point):
            return []
        time_ms = get_now_ms() if telegram.time_ms is None else telegram.time_ms
        return [Showed(channel, time_ms, pico // PICO_PER_WH) for channel, (pico, _) in telegram.registers.items()]

    def _carry_out(self, orders: Sequence[Order], tasks: asyncio.TaskGroup, inputs: Inputs) -> None:
        for order in orders:
            match order:
                case SaveEdge() | SaveSealed() | Forget() | Unseal():
                    self.outbox.save(order)
                case Ask(sealed):
                    tasks.create_task(_answer(self.ledger.ask(sealed), inputs))
                case Send(report):
                    tasks.create_task(_answer(self.ledger.send([report]), inputs))
                case Note(text):
                    self.say(text)


async def play(player: Player, ledger: Ledger, say: Callable[[str], None]) -> int:
    """Play a file to its end; how many intervals the ledger took. Raises ``Refused``, ``MeterError``.

    A node that is away is waited for. What the ledger has already is never sent again.
    """
    done = failures = 0
    stands: dict[Channel, Stand] | None = None
    is_new = True
    while player.left:
        if stands is None:
            answer = await ledger.ask(None)
            if isinstance(answer, Answered):
                stands = dict(answer.stands)
                skipped = player.skip(stands)
                done += 0 if is_new else skipped
                if is_new:
                    say(f"{skipped} intervals are on the ledger already, {player.left} to play")
                    player.start(get_now_ms())
                is_new = False
                continue
        else:
            next_ms = player.compute_next_ms()
            await asyncio.sleep(max(0, (next_ms or 0) - get_now_ms()) / 1000)
            reports = player.list_due(get_now_ms(), stands)
            answer = await ledger.send(reports)
            if isinstance(answer, Accepted):
                failures = 0
                for report in reports:
                    stands[report.channel] = advance_stand(stands.get(report.channel, NEVER), report)
                taken = player.skip(stands)
                done += taken
                say(f"{taken} intervals reported, {player.left} to play")
                continue
        stands = None
        failures += 1
        if isinstance(answer, RefusedBy) and (answer.reason not in ALREADY | NOT_YET or failures == REFUSALS_MAX):
            raise Refused(answer.reason, answer.item)
        why = answer.why if isinstance(answer, Unknown) else answer
        say(f"{why}; again in {compute_retry_ms(failures) // 1000} s")
        await asyncio.sleep(compute_retry_ms(failures) / 1000)
    return done


async def _pump(source: AsyncIterator[Chunk], inputs: Inputs) -> None:
    """Everything that a source gives, then how it ended."""
    try:
        async with aclosing(cast(Any, source)) as chunks:
            async for chunk in chunks:
                await inputs.put(chunk)
    except LocalError as error:
        await inputs.put(error)
    except OSError as error:
        await inputs.put(MeterError("source_ended", error.strerror or error))
    else:
        await inputs.put(None)


async def _answer(question: Any, inputs: Inputs) -> None:
    await inputs.put(await question)
