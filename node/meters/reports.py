"""What a meter signs, and where the ledger says that it stands.

Owns the step from a stretch of intervals to a signed report, for files, for the simulator and for the relay alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from contracts_native.meters import Channel
from contracts_native.readings import UNSIGNED, Flag, Report, sign_report
from node.errors import LocalError
from node.keystore import MeterSigningKey
from node.meter_files.stretches import Stretch

RETRY_LEAST_MS: Final = 1_000
RETRY_MOST_MS: Final = 60_000


class MeterError(LocalError):
    """A meter cannot be played or relayed here.

    Reasons: ``meter_key_unknown``, ``meter_not_active``, ``channel_unknown``, ``source_not_usable``,
    ``source_ended``, ``outbox_in_use``, ``outbox_not_usable``, ``outbox_of_another_meter``.
    """


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a channel stands on the ledger: its last sequence number, the end of its latest interval, its register.

    All are 0 where nothing was ever accepted.
    """

    sequence: int
    end_ms: int
    register_wh: int


NEVER: Final = Stand(0, 0, 0)


@dataclass(frozen=True, slots=True)
class SigningMeter:
    """A meter as its key holder sees it: what it signs for, with what, and its intervals' lengths in seconds."""

    chain_id: str
    meter: bytes
    lengths_s: Mapping[Channel, int]
    key: MeterSigningKey = field(repr=False)

    def sign(self, channel: Channel, stretch: Stretch, *, sequence: int) -> Report:
        """The signed report of a stretch."""
        report = Report(
            self.meter,
            channel,
            sequence,
            stretch.start_ms,
            stretch.interval_s,
            stretch.values_wh,
            stretch.register_start_wh,
            stretch.register_end_wh,
            stretch.flag,
            UNSIGNED,
        )
        return sign_report(report, self.chain_id, self.key.sign)


def make_signing_meter(chain_id: str, meter: Mapping[str, Any], key: MeterSigningKey) -> SigningMeter:
    """The meter that an answer of ``meter_get`` describes. Raises ``MeterError`` (``meter_key_unknown``)."""
    if meter["key"] != key.public_key.hex():
        raise MeterError("meter_key_unknown", f"the ledger has another key for {meter['meter']}")
    lengths_s = {Channel(spec["channel"]): int(spec["interval_s"]) for spec in meter["channels"]}
    return SigningMeter(chain_id, bytes.fromhex(meter["meter"]), lengths_s, key)


def read_stands(meter: Mapping[str, Any]) -> dict[Channel, Stand]:
    """Where each channel stands, from an answer of ``meter_get``."""
    return {
        Channel(name): NEVER if one is None else Stand(one["sequence"], one["end_ms"], one["register_wh"])
        for name, one in meter["last_accepted"].items()
    }


def advance_stand(stand: Stand, report: Report) -> Stand:
    """Where a channel stands once a report is accepted."""
    if report.end_ms > stand.end_ms:
        return Stand(report.sequence, report.end_ms, report.register_end_wh)
    return Stand(report.sequence, stand.end_ms, stand.register_wh)


def make_stretch(
    start_ms: int, interval_s: int, values_wh: Sequence[int], *, register_start_wh: int, flag: Flag = Flag.MEASURED
) -> Stretch:
    """A stretch whose registers add up."""
    end_wh = register_start_wh + sum(values_wh)
    return Stretch(start_ms, interval_s, tuple(values_wh), register_start_wh, end_wh, flag)


def compute_retry_ms(failures: int) -> int:
    """How long to wait after so many failures in a row: a second, then twice as long each time, a minute at most."""
    return min(RETRY_MOST_MS, RETRY_LEAST_MS << min(max(failures - 1, 0), 10))
