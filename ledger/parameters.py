"""The numbers that all validators share and governance may change; one record in the state.

Owns the limits of blocks and transactions and the constants that rules cite. Durations are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from ledger.fields import Bounds, Length
from ledger.tables import Table

if TYPE_CHECKING:
    from ledger.state import State

ZONE_PAIRS_MAX = 1024


@dataclass(frozen=True, slots=True)
class Parameters:
    """What governance may change. Zone pairs are (production zone, consumption zone); a zone always matches itself."""

    transaction_lifetime_blocks: Annotated[int, Bounds(1, 100_000)] = 1_000
    block_transactions_max: Annotated[int, Bounds(1, 50_000)] = 4_000
    block_bytes_max: Annotated[int, Bounds(1_024, 8 * 1024 * 1024)] = 4 * 1024 * 1024
    reading_skew_s: Annotated[int, Bounds(0, 3_600)] = 60  # how far a reading may end after block time
    reading_margin_percent: Annotated[int, Bounds(100, 200)] = 110  # of capacity × length; above it: quarantined
    lot_lifetime_s: Annotated[int, Bounds(1, 10**10)] = 2 * 366 * 86_400
    matching_period_s: Annotated[int, Bounds(60, 86_400 * 31)] = 3_600  # "hourly" when intervals differ in length
    escrow_silence_s: Annotated[int, Bounds(1, 10**9)] = 14 * 86_400
    dispute_deadline_s: Annotated[int, Bounds(1, 10**9)] = 30 * 86_400
    zone_pairs: Annotated[tuple[tuple[str, str], ...], Length(ZONE_PAIRS_MAX)] = ()


PARAMETERS: Table[Parameters] = Table("pp", Parameters, missing="parameters_missing", is_hot=True)

PARAMETER_HISTORY: Table[Parameters] = Table("ph", Parameters, missing="parameters_missing")  # by height


def set_parameters(state: State, parameters: Parameters, *, from_height: int) -> None:
    """Let these be in force from a height on. Old ones stay, for those who ask what was in force."""
    PARAMETERS.put(state, value=parameters)
    PARAMETER_HISTORY.put(state, from_height, value=parameters)


def find_parameters_at(state: State, height: int) -> Parameters | None:
    """The parameters in force for the block of a height."""
    found = PARAMETER_HISTORY.find_floor(state, height)
    return None if found is None else found[1]


def get_parameters(state: State) -> Parameters:
    """The parameters in force."""
    return PARAMETERS.get(state)
