"""Real meter files through the command line onto a running ledger: what arrives is what other programs found in them.

One validator runs for all tests; each registers a meter, submits a file and compares the ledger's own answers. Totals
are those that the files' READMEs and ``expected.json`` state, not those that our readers compute.
"""

from __future__ import annotations

import asyncio
import csv
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner, Result

from node.cli.app import app
from node.keystore import MeterSigningKey, save_key_unencrypted
from node.testnet import Testnet
from tests.integration.processes import BLOCK_MS, TIMEOUT_MS

EXAMPLES: Final = Path(__file__).resolve().parents[2] / "examples" / "data"
SHARED: Final = Path(__file__).resolve().parents[2].parent / "shared" / "data"
PRODUCTION: Final = "production"
CONSUMPTION: Final = "consumption"
LONG_AGO: Final = "2000-01-01"
HOME_W: Final = 1_000_000  # no sample of a home comes near it
COMMUNITY: Final = "community_rural2_2016jun_15min.csv"


@dataclass(frozen=True, slots=True)
class Meter:
    """A registered meter: its id, its site's, and its key file."""

    meter: str
    site: str
    key_path: Path


@dataclass(frozen=True, slots=True)
class Totals:
    """What must be on the ledger: Wh by channel, and what of the production minted nothing."""

    by_channel: dict[str, int]
    quarantined_wh: int = 0
    not_minted_wh: int = 0


@dataclass(slots=True)
class Ledger:
    """A network of one node, asked and told through the command line only."""

    net: Testnet
    directory: Path
    meters: int = 0

    def run(self, *words: object) -> Result:
        environment = {
            "WATTPRINT_NODE": self.net.urls[0],
            "WATTPRINT_KEY": str(self.net.get_key_path("utility")),
            "WATTPRINT_PASSPHRASE": None,
            "WATTPRINT_HOME": None,
        }
        result = CliRunner().invoke(app, [str(word) for word in words], env=environment)
        assert "Traceback" not in result.output
        return result

    def run_json(self, *words: object) -> Any:
        result = self.run(*words, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def refuse(self, *words: object) -> tuple[int, str]:
        """A command that must fail, with one line: its exit status and the line."""
        result = self.run(*words)
        lines = [line for line in result.stderr.splitlines() if line.startswith("wattprint: ")]
        assert len(lines) == 1, result.output
        return result.exit_code, lines[0]

    def register(self, interval_s: int, capacity_w: int, *, technology: str = "solar", site: str = "") -> Meter:
        """A meter with both channels, at a site of its own unless one is named."""
        owner = self.net.get_key_path("prosumer")
        shared = ("--commissioned-ms", LONG_AGO, "--cosign", owner)
        if not site:
            words = ("--owner", owner, "--technology", technology, "--zone", "EU", "--capacity-w", capacity_w)
            site = find_event(self.run_json("site", "register", *words, *shared), "site.registered")["site"]
        self.meters += 1
        key = MeterSigningKey.generate("p256" if self.meters % 2 else "ed25519")
        path = self.directory / f"meter-{self.meters}.key.json"
        save_key_unencrypted(path, key)
        channels = [
            word
            for channel in (PRODUCTION, CONSUMPTION)
            for word in ("--channels", f"channel={channel},capacity_w={capacity_w},interval_s={interval_s}")
        ]
        named = ("--site", site, "--serial", f"S-{self.meters}", "--meter-key", path)
        done = self.run_json("meter", "register", *named, *channels, *shared)
        return Meter(find_event(done, "meter.registered")["meter"], site, path)

    def submit(self, meter: Meter, *words: object) -> Any:
        """Submit files as a meter."""
        return self.run_json("reading", "submit", *words, *sign_as(meter))

    def list_readings(self, meter: Meter) -> list[dict[str, Any]]:
        readings: list[dict[str, Any]] = self.run_json("reading", "list", meter.meter, "--all")["readings"]
        return readings

    def audit(self) -> Counter[str]:
        """What was metered and what became of it, over all sites; every sum of the audit holds."""
        document = self.run_json("chain", "audit")
        assert [one for one in document["sums"] if not one["holds"]] == []
        (accounted,) = [one for one in document["sums"] if one["name"] == "metered_is_accounted_for"]
        return Counter({**accounted["left_parts"], **accounted["right_parts"]})

    def check(self, meter: Meter, expected: Totals, before: Counter[str]) -> list[dict[str, Any]]:
        """The readings of a meter, once the list, the trace and the audit all have the expected totals."""
        readings = self.list_readings(meter)
        assert sum_up(readings) == expected.by_channel
        traced = self.run_json("trace", "source", meter.site)
        produced_wh = expected.by_channel.get(PRODUCTION, 0)
        minted_wh = produced_wh - expected.quarantined_wh - expected.not_minted_wh
        assert traced["holds"]
        assert (traced["metered_wh"], traced["minted_wh"]) == (produced_wh, minted_wh)
        assert (traced["quarantined_wh"], traced["not_minted_wh"]) == (expected.quarantined_wh, expected.not_minted_wh)
        assert sum(row["wh"] for row in traced["rows"]) == minted_wh
        after = self.audit()
        after.subtract(before)
        assert after == {
            "metered": produced_wh,
            "minted": minted_wh,
            "quarantined": expected.quarantined_wh,
            "not_minted": expected.not_minted_wh,
        }
        return readings


def sign_as(meter: Meter) -> tuple[object, ...]:
    return ("--meter", meter.meter, "--meter-key", meter.key_path)


def find_event(done: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [event for event in done["events"] if event["event"] == name]
    return dict(found)


def sum_up(readings: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Wh by channel."""
    sums: Counter[str] = Counter()
    for one in readings:
        sums[one["channel"]] += one["wh"]
    return dict(sums)


def find_sample(name: str) -> Path:
    """A file of the shared data, or a skip that names it."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"the shared data are not here: {name}")
    return path


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    directory = tmp_path_factory.mktemp("meter-files")
    net = Testnet.create(directory / "net", validators=1, block_ms=BLOCK_MS, base_port=0)
    try:
        asyncio.run(net.start(timeout_ms=TIMEOUT_MS))
        yield Ledger(net, directory)
    finally:
        net.stop_now()


def read_column(path: Path, column: str) -> list[int]:
    with path.open(newline="") as stream:
        return [int(row[column]) for row in csv.DictReader(stream)]


CSV_SAMPLES: Final = [
    # file, length in s, capacity in W, intervals, production, consumption: as the READMEs beside them state
    ("generation/wind_lhb_R80711_2014q1_10min.csv", 600, 2_050_000, 12_524, 1_101_363_930, 328_963),
    ("generation/wind_lhb_R80736_2014q1_60min.csv", 3_600, 2_050_000, 2_088, 987_925_171, 169_613),
    ("generation/pv_serf_east_2016_15min.csv", 900, 6_000, 10_000, 2_941_908, 3_552),
    ("consumption/home_uk_a_2020_2021_60min.csv", 3_600, 20_000, 8_760, None, 1_452_470),
    ("consumption/factory_kr_2018h1_15min.csv", 900, 700_000, 17_376, None, 521_199_760),
    ("prosumer/home_fr_spring_summer2024_30min.csv", 1_800, 9_000, 7_133, 3_022_871, 2_132_040),
]


def find_csv(name: str) -> Path:
    """The sample, from this repository if it has it."""
    own = EXAMPLES / Path(name).name
    return own if own.exists() else find_sample(name)


@pytest.mark.parametrize(
    ("name", "interval_s", "capacity_w", "intervals", "production_wh", "consumption_wh"), CSV_SAMPLES
)
def test_a_csv_gives_the_totals_of_its_readme(
    ledger: Ledger,
    name: str,
    *,
    interval_s: int,
    capacity_w: int,
    intervals: int,
    production_wh: int | None,
    consumption_wh: int,
) -> None:
    path, before = find_csv(name), ledger.audit()
    meter = ledger.register(interval_s, capacity_w)
    done = ledger.submit(meter, path)
    totals = {CONSUMPTION: consumption_wh} | ({} if production_wh is None else {PRODUCTION: production_wh})
    assert {one["direction"]: one["total_wh"] for one in done["channels"]} == totals
    readings = ledger.check(meter, Totals(totals), before)
    assert Counter(one["channel"] for one in readings) == dict.fromkeys(totals, intervals)
    assert {one["flag"] for one in readings} == {"measured"}


def test_a_community_of_31_columns_gives_the_totals_of_its_readme(ledger: Ledger) -> None:
    with (EXAMPLES / "sites_rural2.csv").open(newline="") as stream:
        columns = list(csv.DictReader(stream))
    assert len(columns) == 31
    before, site = ledger.audit(), ""
    sums: Counter[str] = Counter()
    meters = []
    for one in columns:
        # One site for all, so that one question has all of it. Rated power is no limit to these profiles.
        meter = ledger.register(900, 3_000_000, site=site)
        site = meter.site
        ledger.submit(meter, EXAMPLES / COMMUNITY, "--column", one["site"], "--direction", one["direction"])
        meters.append(meter)
    for meter in meters:
        sums.update(sum_up(ledger.list_readings(meter)))
    assert sums == {PRODUCTION: 340_564_749, CONSUMPTION: 11_701_112}
    traced = ledger.run_json("trace", "source", site)
    assert (traced["metered_wh"], traced["minted_wh"], traced["holds"]) == (340_564_749, 340_564_749, True)
    after = ledger.audit()
    after.subtract(before)
    assert after == {"metered": 340_564_749, "minted": 340_564_749, "quarantined": 0, "not_minted": 0}


def test_values_above_the_capacity_are_quarantined_and_nothing_is_clipped(ledger: Ledger) -> None:
    path, before = EXAMPLES / "pv_serf_east_2016_15min.csv", ledger.audit()
    most_wh = 4_000 * 900 * 110 // (3_600 * 100)
    above = [wh for wh in read_column(path, "production_wh") if wh > most_wh]
    assert len(above) > 100
    meter = ledger.register(900, 4_000)
    ledger.submit(meter, path)
    expected = Totals({PRODUCTION: 2_941_908, CONSUMPTION: 3_552}, quarantined_wh=sum(above))
    readings = ledger.check(meter, expected, before)
    assert [one["wh"] for one in readings if one["state"] == "quarantined"] == above


def test_a_file_in_two_parts_is_as_at_once_and_goes_in_only_once(ledger: Ledger) -> None:
    path, before = EXAMPLES / "wind_lhb_R80736_2014q1_60min.csv", ledger.audit()
    meter = ledger.register(3_600, 2_050_000)
    ledger.submit(meter, path, "--until", "2014-02-11T05:00:00Z")
    status, line = ledger.refuse("reading", "submit", path, *sign_as(meter))
    assert (status, "interval_already_reported" in line) == (1, True)
    ledger.submit(meter, path, "--from", "2014-02-11T05:00:00Z")
    ledger.check(meter, Totals({PRODUCTION: 987_925_171, CONSUMPTION: 169_613}), before)
    stands = ledger.run_json("meter", "show", meter.meter)["last_accepted"]
    assert {name: stand["register_wh"] for name, stand in stands.items()} == {
        PRODUCTION: 987_925_171,
        CONSUMPTION: 169_613,
    }


@pytest.mark.parametrize(
    ("name", "interval_s"),
    [
        ("abridged_electric.xml", 3_600),
        ("ameren_15min_2023-12-04.xml", 900),
        ("coastal_multi_family_2011_hourly.xml", 3_600),
        ("hourly_nine_days.xml", 3_600),
        ("openespi_15min_one_day.xml", 900),
        ("openespi_15min_short_day.xml", 900),
    ],
)
def test_green_button_gives_the_expected_sum(ledger: Ledger, name: str, interval_s: int) -> None:
    path = find_sample(f"greenbutton/{name}")
    expected = json.loads((path.parent / "expected.json").read_text())[name]
    before, meter = ledger.audit(), ledger.register(interval_s, HOME_W)
    ledger.submit(meter, path)
    readings = ledger.check(meter, Totals({CONSUMPTION: expected["raw_sum"]}), before)
    assert len(readings) == expected["interval_readings"]
    assert readings[0]["start_ms"] == expected["first_start"] * 1_000
    assert readings[-1]["start_ms"] == (expected["last_end"] - interval_s) * 1_000


def test_a_minute_meter_takes_what_five_minutes_of_telegrams_fill_from_its_own_counter(ledger: Ledger) -> None:
    path = find_sample("dsmr/stream_iskra_2019_part1.txt")
    counters = read_iskra(path.read_text("latin-1"))
    edges = [counters[f"1903241506{second:02}W"] for second in (0,)] + [
        counters[f"19032415{minute:02}00W"] for minute in (7, 8, 9, 10)
    ]
    before, meter = ledger.audit(), ledger.register(60, HOME_W)
    result = ledger.run("reading", "submit", path, *sign_as(meter))
    total_wh = edges[-1] - edges[0]
    left_wh = 42 - total_wh  # 42 Wh is what the counter moved from the first telegram to the last
    assert (result.exit_code, f"{left_wh} Wh that fill no interval of 60 s" in result.stderr) == (0, True)
    readings = ledger.check(meter, Totals({CONSUMPTION: total_wh, PRODUCTION: 0}), before)
    consumed = [one["wh"] for one in readings if one["channel"] == CONSUMPTION]
    assert consumed == [later - earlier for earlier, later in pairwise(edges)]
    stand = ledger.run_json("meter", "show", meter.meter)["last_accepted"][CONSUMPTION]
    assert stand["register_wh"] == edges[-1]


def read_iskra(text: str) -> dict[str, int]:
    """What the counters of consumption showed together in Wh, by the telegram's own time."""
    shown: dict[str, int] = {}
    time, sum_wh = "", 0
    for line in text.splitlines():
        name, _, rest = line.partition("(")
        if line.startswith("/"):
            time, sum_wh = "", 0
        elif name == "0-0:1.0.0":
            time = rest.rstrip(")")
        elif name in ("1-0:1.8.1", "1-0:1.8.2"):
            sum_wh += int(rest.partition("*")[0].replace(".", ""))
        elif line.startswith("!") and time:
            shown[time] = sum_wh
    return shown


@pytest.mark.parametrize(
    ("name", "interval_s"),
    [
        ("Example_NEM12_month_solar.csv", 300),
        ("Example_NEM12_actual_interval.csv", 1_800),
        ("Example_NEM12_substituted_interval.csv", 1_800),
        ("Example_NEM12_multiple_quality.csv", 1_800),
    ],
)
def test_nem12_gives_the_expected_sums(ledger: Ledger, name: str, interval_s: int) -> None:
    path = find_sample(f"nem12/{name}")
    found = json.loads((path.parent / "expected.json").read_text())[name]
    energy = {point: one for point, one in found.items() if one["unit"] == "kWh"}
    before, meter = ledger.audit(), ledger.register(interval_s, HOME_W)
    ledger.submit(meter, path)
    channels = {point: PRODUCTION if "/B" in point else CONSUMPTION for point in energy}
    totals = {channels[point]: round(one["sum"] * 1_000) for point, one in energy.items()}
    readings = ledger.check(meter, Totals(totals), before)
    assert len(readings) == sum(one["readings"] for one in energy.values())
    qualities = {quality[0] for one in energy.values() for quality in one["quality"]}
    assert {one["flag"] for one in readings} == {
        {"A": "measured", "F": "substituted", "S": "substituted"}[quality] for quality in qualities
    }
    first = datetime.fromisoformat(min(one["first_start"] for one in energy.values()) + "+10:00")
    assert min(one["start_ms"] for one in readings) == int(first.astimezone(UTC).timestamp()) * 1_000


def test_mscons_gives_the_expected_sums_of_both_directions(ledger: Ledger) -> None:
    paths = [find_sample(f"mscons/sak_1457284{number}.edi") for number in (0, 1)]
    before, meter = ledger.audit(), ledger.register(900, HOME_W)
    ledger.submit(meter, *paths)
    readings = ledger.check(meter, Totals({CONSUMPTION: 3_719_250, PRODUCTION: 7_050}), before)
    assert len(readings) == 2 * 96


def test_production_that_is_called_estimated_is_on_the_ledger_and_mints_nothing(ledger: Ledger) -> None:
    path, before = find_sample("mscons/sak_14572841.edi"), ledger.audit()
    meter = ledger.register(900, HOME_W)
    ledger.submit(meter, path, "--flag", "estimated")
    ledger.check(meter, Totals({PRODUCTION: 7_050}, not_minted_wh=7_050), before)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("greenbutton/abridged_gas.xml", "service_not_electricity"),
        ("greenbutton/daily_one_year.xml", "interval_length_not_accepted"),
        ("greenbutton/openespi_subscription_feed.xml", "no interval to submit"),
        ("dsmr/stream_iskra_2019_part1.txt", "fill no interval of the meter, which has intervals of 900 s"),
        ("dsmr/v5.txt", "it takes two"),
        ("dsmr/unpadded_crc.txt", "no interval to submit"),
        ("nem12/Example_NEM13_consumption_data.csv", "format_has_no_intervals"),
        ("nem12/invalid/Example_NEM12_incomplete_interval.csv", "values_missing"),
        ("nem12/invalid/Example_NEM12_missing_header.csv", "header_missing"),
        ("mscons/month_quarter_hour_sample01.edi", "interval_length_wrong"),
        ("community/sites_rural2.csv", "file_not_recognised"),
    ],
)
def test_a_sample_that_no_meter_can_sign_is_refused_by_name_and_leaves_no_trace(
    ledger: Ledger, name: str, reason: str
) -> None:
    path, before = find_sample(name), ledger.audit()
    meter = ledger.register(900, HOME_W)
    status, line = ledger.refuse("reading", "submit", path, *sign_as(meter))
    assert (status, reason in line) == (2, True), line
    assert ledger.list_readings(meter) == []
    assert ledger.audit() == before


def test_two_points_of_one_direction_are_not_one_meter(ledger: Ledger) -> None:
    meter = ledger.register(900, HOME_W)
    columns = ("--column", "c01_household", "--column", "c02_business", "--direction", CONSUMPTION)
    status, line = ledger.refuse("reading", "submit", EXAMPLES / COMMUNITY, *columns, *sign_as(meter))
    assert (status, "are both consumption at 2016-06-06T00:00:00Z" in line) == (2, True)
