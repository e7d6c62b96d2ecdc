"""Slices: how a lot is cut between holders, and what may become of a part.

Owns the arithmetic of partitions and the table of a slice's statuses; no state is read or written here. The slices of
a lot, in all statuses, cover it from its first watt-hour to its last.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Final

from ledger.fields import Length
from ledger.primitives import Address


class SliceStatus(enum.StrEnum):
    """Where a slice stands; ``SLICE_TRANSITIONS`` says what may follow. Expiry follows from time alone."""

    ACTIVE = "active"
    RESERVED = "reserved"
    CLAIMED = "claimed"
    CHARGED = "charged"
    EXPIRED = "expired"
    WITHDRAWN = "withdrawn"


# (status, transaction) → the status that follows. What is not here is refused, or leaves the slice as it is when a
# lot is withdrawn: what was used stays used, and its claim is impaired. Expiry is no transaction: active → expired.
SLICE_TRANSITIONS: Final[Mapping[tuple[SliceStatus, str], SliceStatus]] = {
    (SliceStatus.ACTIVE, "energy.transfer"): SliceStatus.ACTIVE,
    (SliceStatus.ACTIVE, "energy.claim"): SliceStatus.CLAIMED,
    (SliceStatus.ACTIVE, "storage.charge"): SliceStatus.CHARGED,
    (SliceStatus.ACTIVE, "offer.open"): SliceStatus.RESERVED,
    (SliceStatus.RESERVED, "offer.accept"): SliceStatus.ACTIVE,
    (SliceStatus.RESERVED, "offer.cancel"): SliceStatus.ACTIVE,
    (SliceStatus.ACTIVE, "energy.withdraw"): SliceStatus.WITHDRAWN,
    (SliceStatus.RESERVED, "energy.withdraw"): SliceStatus.WITHDRAWN,
    (SliceStatus.EXPIRED, "energy.withdraw"): SliceStatus.WITHDRAWN,
    (SliceStatus.ACTIVE, "reading.correct"): SliceStatus.WITHDRAWN,
    (SliceStatus.RESERVED, "reading.correct"): SliceStatus.WITHDRAWN,
    (SliceStatus.EXPIRED, "reading.correct"): SliceStatus.WITHDRAWN,
}


@dataclass(frozen=True, slots=True)
class Slice:
    """A range of a lot. ``reference``: the claim, offer or charge that has it; empty while active."""

    first_wh: int
    end_wh: int
    holder: Address
    status: SliceStatus
    reference: Annotated[bytes, Length(16)]

    @property
    def wh(self) -> int:
        """How much it is."""
        return self.end_wh - self.first_wh


def split_by_shares(wh: int, shares: Sequence[tuple[Address, int]]) -> list[int]:
    """Parts of ``wh`` in proportion to the weights, by largest remainder; equal remainders go by order.

    The parts are in the order of the shares and sum exactly to ``wh``.
    """
    total = sum(weight for _, weight in shares)
    parts = [wh * weight // total for _, weight in shares]
    by_remainder = sorted(range(len(shares)), key=lambda index: -(wh * shares[index][1] % total))
    for index in by_remainder[: wh - sum(parts)]:
        parts[index] += 1
    return parts


def make_first_slices(wh: int, shares: Sequence[tuple[Address, int]]) -> tuple[Slice, ...]:
    """The slices of a lot as it is minted; a shareholder whose part is 0 Wh gets none."""
    slices: list[Slice] = []
    first_wh = 0
    for (holder, _), part_wh in zip(shares, split_by_shares(wh, shares), strict=True):
        if part_wh:
            slices.append(Slice(first_wh, first_wh + part_wh, holder, SliceStatus.ACTIVE, b""))
            first_wh += part_wh
    return tuple(slices)


def replace_range(slices: tuple[Slice, ...], left: int, right: int, new: Slice) -> tuple[Slice, ...]:
    """``slices[left:right]`` cover ``new``: cut what sticks out, put ``new`` in, merge what became equal."""
    parts: list[Slice] = [] if left == 0 else [slices[left - 1]]
    if slices[left].first_wh < new.first_wh:
        parts.append(replace(slices[left], end_wh=new.first_wh))
    parts.append(new)
    if slices[right - 1].end_wh > new.end_wh:
        parts.append(replace(slices[right - 1], first_wh=new.end_wh))
    if right < len(slices):
        parts.append(slices[right])
    return slices[: max(left - 1, 0)] + merge_equal(parts) + slices[right + 1 :]


def merge_equal(parts: Sequence[Slice]) -> tuple[Slice, ...]:
    """Neighbours that differ in nothing but their range become one."""
    merged = [parts[0]]
    for part in parts[1:]:
        last = merged[-1]
        if (part.holder, part.status, part.reference) == (last.holder, last.status, last.reference):
            merged[-1] = replace(last, end_wh=part.end_wh)
        else:
            merged.append(part)
    return tuple(merged)


def is_partition(slices: Sequence[Slice], wh: int) -> bool:
    """Whether slices cover [0, ``wh``) in order, without gap, overlap or empty slice."""
    return (
        slices[0].first_wh == 0
        and slices[-1].end_wh == wh
        and all(one.end_wh == after.first_wh for one, after in pairwise(slices))
        and all(one.first_wh < one.end_wh for one in slices)
    )
