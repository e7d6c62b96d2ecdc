"""The words of these tests: a file from text, its sums, its refusal."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from ledger.fields import Json
from node.meter_files.detection import read_meter_file
from node.meter_files.model import ChannelData, MeterFileError, collect_channels, make_meter_file
from node.meter_files.opening import open_meter_file
from node.meter_files.summary import summarise_events

SHARED: Final = Path(__file__).resolve().parents[3].parent / "shared" / "data"
# These samples are not the project's to commit; each format has tests on made-up files beside those that use them.
needs_samples: Final = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not here")


def sum_up(data: str | bytes, form: str | None = None) -> list[dict[str, Json]]:
    file = make_meter_file("x", data.encode() if isinstance(data, str) else data)
    return [one.to_json() for one in summarise_events(read_meter_file(file, form))]


def sum_up_sample(name: str) -> list[dict[str, Json]]:
    return [one.to_json() for one in summarise_events(read_meter_file(open_meter_file(SHARED / name)))]


def collect(data: str | bytes, form: str | None = None) -> list[ChannelData]:
    file = make_meter_file("x", data.encode() if isinstance(data, str) else data)
    return collect_channels(read_meter_file(file, form))


def get_refusal(data: str | bytes, form: str | None = None) -> str:
    with pytest.raises(MeterFileError) as refused:
        sum_up(data, form)
    return str(refused.value)
