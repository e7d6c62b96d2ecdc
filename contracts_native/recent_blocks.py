"""What rules may know of the blocks before: the last few by id and proposer, and rough times of the last many.

Owns two rings in the state. A rule must not read old blocks, since a node that began from a snapshot lacks them; what
stands here is part of the state, the same at every node, and never grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ledger.primitives import Hash, PublicKey
from ledger.state import State
from ledger.tables import Table
from ledger.transaction import BlockEnd

RECENT_BLOCKS: Final = 400  # four turns of the largest set
TIME_STEP_BLOCKS: Final = 100  # every so many heights a block time is kept
TIMES_KEPT_BLOCKS: Final = 100_000


@dataclass(frozen=True, slots=True)
class RecentBlock:
    """A block that was committed a short while ago; its own id is known to the next one."""

    height: int
    proposer: PublicKey
    parent_id: Hash


@dataclass(frozen=True, slots=True)
class BlockTime:
    """Block time at a height."""

    time_ms: int


RECENT: Table[RecentBlock] = Table("gb", RecentBlock, missing="block_not_recent")
TIMES: Table[BlockTime] = Table("gt", BlockTime, missing="block_time_not_kept")


def note_block(state: State, end: BlockEnd) -> None:
    """Remember a block; what is too old goes."""
    height = end.block.height
    RECENT.put(state, height % RECENT_BLOCKS, value=RecentBlock(height, end.proposer, end.parent_id))
    if height % TIME_STEP_BLOCKS == 0:
        TIMES.put(state, height, value=BlockTime(end.block.time_ms))
        if height > TIMES_KEPT_BLOCKS:
            TIMES.delete(state, height - TIMES_KEPT_BLOCKS - TIME_STEP_BLOCKS)


def find_block_id(state: State, height: int) -> Hash | None:
    """The id of a recent block, from the block after it; None for the last block and for what is not recent."""
    child = RECENT.find(state, (height + 1) % RECENT_BLOCKS)
    return child.parent_id if child is not None and child.height == height + 1 else None


def list_proposers(state: State, *, from_height: int) -> set[PublicKey]:
    """Who proposed the blocks from a height on, as far as they are recent."""
    return {block.proposer for _, block in RECENT.scan(state) if block.height >= from_height}


def find_time_ms(state: State, height: int) -> int | None:
    """The block time at the next hundredth height, at or after this one; None if it has not come.

    Of heights too long ago, the first time that is kept.
    """
    found = TIMES.find_above(state, max(height - 1, 0))
    return None if found is None else found[1].time_ms
