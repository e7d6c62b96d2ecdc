"""Links between real processes that are slow, lossy or cut: in the middle, or in one direction only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from node.client_errors import NotYetCommitted
from tests.integration.links import Links, ProxyLinks, linked_network, part
from tests.integration.namespaces import NamespaceLinks, NamespacesMissing

HALT_MS = 4_000  # longer than a round, its timeouts included


@pytest.fixture(params=["proxy", "namespaces"])
async def links(request: pytest.FixtureRequest) -> AsyncIterator[Links]:
    """Through a proxy on every machine; through the kernel as well where that is allowed."""
    async with AsyncExitStack() as stack:
        try:
            made = ProxyLinks() if request.param == "proxy" else NamespaceLinks()
            yield await stack.enter_async_context(made)
        except NamespacesMissing as error:
            pytest.skip(str(error))


async def test_over_slow_and_lossy_links_everything_is_decided_once(links: Links, tmp_path: Path) -> None:
    async with linked_network(links, tmp_path / "net") as network:
        await network.wait((await network.issue(1_000)).tx_id)
        await links.worsen()
        done = [await network.transfer(cents, at=cents % 4) for cents in range(1, 7)]
        await network.check_one_chain(done[-1].tx_id)
        assert await network.get_balances(network.consumer) == {1_000 - 21}


async def test_a_validator_that_is_cut_off_is_not_missed_and_catches_up(links: Links, tmp_path: Path) -> None:
    async with linked_network(links, tmp_path / "net") as network:
        await network.wait((await network.issue(1_000)).tx_id)
        await part(links, [3], [0, 1, 2])
        done = [await network.transfer(cents, at=cents % 3) for cents in range(1, 4)]
        await network.wait(done[-1].tx_id, 0, 1, 2)
        (behind,) = await network.get_heights(3)
        assert done[-1].height is not None
        assert behind < done[-1].height
        await links.heal()
        await network.check_one_chain(done[-1].tx_id)
        await network.check_one_chain((await network.transfer(10, at=3)).tx_id)


async def test_halves_that_do_not_hear_each_other_decide_nothing_and_never_fork(links: Links, tmp_path: Path) -> None:
    async with linked_network(links, tmp_path / "net") as network:
        await network.wait((await network.issue(1_000)).tx_id)
        await part(links, [0, 1], [2, 3])
        submitting = [network.transfer(1, at=at, timeout_ms=HALT_MS) for at in (0, 2)]
        late = await asyncio.gather(*submitting, return_exceptions=True)
        waiting = [str(one.tx_id) for one in late if isinstance(one, NotYetCommitted)]
        assert len(waiting) == 2, late
        heights = await network.get_heights()
        assert max(heights) - min(heights) <= 1  # one may have heard the last vote before the cut
        await links.heal()
        for tx_id in waiting:
            assert {answer["status"] for answer in await network.wait(tx_id)} == {"committed"}
        await network.check_one_chain((await network.transfer(10, at=1)).tx_id)
        assert await network.get_balances(network.consumer) == {1_000 - 12}


async def test_a_validator_that_hears_and_is_not_heard_holds_nobody_up(links: Links, tmp_path: Path) -> None:
    async with linked_network(links, tmp_path / "net") as network:
        await network.wait((await network.issue(1_000)).tx_id)
        for receiver in (0, 1, 2):
            await links.cut(3, receiver)
        with pytest.raises(NotYetCommitted) as unheard:
            await network.transfer(10, at=3, timeout_ms=100)
        done = [await network.transfer(cents, at=cents % 3) for cents in range(1, 4)]
        await network.wait(done[-1].tx_id, 0, 1, 2)
        told = await network.tell_of(str(unheard.value.tx_id))
        assert {answer["status"] for answer in told} == {"unknown", "pending"}
        await links.heal()
        await network.check_one_chain(str(unheard.value.tx_id))
        assert await network.get_balances(network.consumer) == {1_000 - 6 - 10}
