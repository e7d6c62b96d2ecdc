"""Green Button: what a feed's numbers mean, and XML that means harm."""

from __future__ import annotations

import pytest

from contracts_native.meters import Channel
from contracts_native.readings import Flag
from node.meter_files.green_button import read_green_button
from node.meter_files.model import make_meter_file
from tests.node.meter_files.reading_words import collect, get_refusal, sum_up

FEED = '<feed xmlns="http://www.w3.org/2005/Atom" xmlns:espi="http://naesb.org/espi">{}</feed>'
ROOT = "https://utility.example/espi"


def make_entry(content: str, href: str, *related: str) -> str:
    links = f'<link rel="self" href="{ROOT}/{href}"/><link rel="up" href="{ROOT}/{href.rpartition("/")[0]}"/>'
    links += "".join(f'<link rel="related" href="{ROOT}/{one}"/>' for one in related)
    return f"<entry>{links}<content>{content}</content></entry>"


def make_point(number: int = 1, kind: str = "0") -> str:
    content = (
        f"<espi:UsagePoint><espi:ServiceCategory><espi:kind>{kind}</espi:kind></espi:ServiceCategory></espi:UsagePoint>"
    )
    return make_entry(content, f"UsagePoint/{number}", f"UsagePoint/{number}/MeterReading")


def make_type(number: int = 1, /, **texts: object) -> str:
    fields: dict[str, object] = {
        "accumulationBehaviour": 4,
        "commodity": 1,
        "flowDirection": 1,
        "intervalLength": 900,
        "kind": 12,
    }
    fields |= {"powerOfTenMultiplier": 0, "uom": 72} | texts
    content = "".join(f"<espi:{name}>{text}</espi:{name}>" for name, text in fields.items() if text is not None)
    return make_entry(f"<espi:ReadingType>{content}</espi:ReadingType>", f"ReadingType/{number}")


def make_reading(number: int = 1) -> str:
    href = f"UsagePoint/{number}/MeterReading/1"
    return make_entry("<espi:MeterReading/>", href, f"{href}/IntervalBlock", f"ReadingType/{number}")


def make_value(start: object, value: object, duration: object = 900, quality: object = None) -> str:
    inner = (
        "" if quality is None else f"<espi:ReadingQuality><espi:quality>{quality}</espi:quality></espi:ReadingQuality>"
    )
    times = f"<espi:duration>{duration}</espi:duration><espi:start>{start}</espi:start>"
    inner += f"<espi:timePeriod>{times}</espi:timePeriod><espi:value>{value}</espi:value>"
    return f"<espi:IntervalReading>{inner}</espi:IntervalReading>"


def make_block(*values: str, number: int = 1) -> str:
    content = f"<espi:IntervalBlock>{''.join(values)}</espi:IntervalBlock>"
    return make_entry(content, f"UsagePoint/{number}/MeterReading/1/IntervalBlock/7")


def make_feed(*values: str, **texts: object) -> str:
    return FEED.format(make_point() + make_reading() + make_type(1, **texts) + make_block(*values))


def test_a_value_is_scaled_exactly_and_goes_the_way_the_type_says() -> None:
    (only,) = collect(make_feed(make_value(900, 7), powerOfTenMultiplier=3, flowDirection=19))
    assert (only.direction, only.unit, only.values[0].wh) == (Channel.PRODUCTION, "kWh", 7_000)
    (only,) = collect(make_feed(*(make_value(900 * at, 600) for at in range(5)), powerOfTenMultiplier=-3))
    assert [value.wh for value in only.values] == [0, 1, 0, 1, 1]


def test_entries_may_come_in_any_order() -> None:
    blocks = make_block(make_value(900, 1)) + make_block(make_value(1_800, 2))
    (only,) = collect(FEED.format(blocks + make_type() + make_reading() + make_point()))
    assert [value.wh for value in only.values] == [1, 2]


def test_each_block_finds_the_type_of_its_own_reading() -> None:
    both = [make_point(n) + make_reading(n) + make_block(make_value(900, 5), number=n) for n in (1, 2)]
    channels = collect(FEED.format(make_type(2, flowDirection=19) + "".join(both) + make_type(1)))
    assert [(one.point, one.direction) for one in channels] == [
        ("UsagePoint/1/MeterReading/1", Channel.CONSUMPTION),
        ("UsagePoint/2/MeterReading/1", Channel.PRODUCTION),
    ]


@pytest.mark.parametrize(
    ("quality", "flag"),
    [(0, Flag.MEASURED), (17, Flag.MEASURED), (8, Flag.ESTIMATED), (10, Flag.ESTIMATED), (7, Flag.SUBSTITUTED)],
)
def test_a_quality_becomes_a_flag(quality: int, flag: Flag) -> None:
    assert collect(make_feed(make_value(900, 1, quality=quality)))[0].values[0].flag is flag


def test_the_type_says_the_quality_of_values_that_do_not() -> None:
    (only,) = collect(make_feed(make_value(900, 1), make_value(1_800, 1, quality=17), defaultQuality=9))
    assert [value.flag for value in only.values] == [Flag.ESTIMATED, Flag.MEASURED]


def test_days_of_23_and_25_hours_keep_their_length_and_a_gap_stays_one() -> None:
    values = [make_value(0, 1, 82_800), make_value(82_800, 1, 90_000), make_value(10**6, 1, 86_400)]
    (only,) = sum_up(make_feed(*values, intervalLength=86_400))
    assert (only["interval_s"], only["intervals"], only["total_wh"]) == (86_400, 3, 3)
    assert only["last_end"] == "1970-01-13T13:46:40Z"


def test_gas_beside_electricity_is_left_out() -> None:
    gas = make_point(2, kind="1") + make_reading(2) + make_type(2, uom=169) + make_block(make_value(900, 9), number=2)
    electricity = make_point() + make_reading() + make_type() + make_block(make_value(900, 5))
    assert [one["total_wh"] for one in sum_up(FEED.format(gas + electricity))] == [5]


def test_reactive_energy_and_demand_are_left_out() -> None:
    assert sum_up(make_feed(make_value(900, 5), uom=73)) == []
    assert sum_up(make_feed(make_value(900, 5), kind=37)) == []


@pytest.mark.parametrize(
    ("feed", "reason"),
    [
        (make_feed(make_value(900, "x")), "value_not_a_number"),
        (make_feed(make_value(900, "")), "values_missing"),
        (make_feed(make_value(900, -1)), "value_negative"),
        (make_feed(make_value(900, 10**13)), "value_too_large"),
        (make_feed(make_value(900, 1), uom=9_999), "unit_unknown"),
        (make_feed(make_value(900, 1), uom=None), "unit_unknown"),
        (make_feed(make_value(900, 1), flowDirection=4), "direction_unknown"),
        (make_feed(make_value(900, 1), accumulationBehaviour=3), "accumulation_not_delta"),
        (make_feed(make_value(900, 1), powerOfTenMultiplier=99), "value_not_a_number"),
        (make_feed(make_value(900, 1, quality=99)), "quality_unknown"),
        (make_feed(make_value("900.5", 1)), "time_invalid"),
        (make_feed(make_value("", 1)), "time_missing"),
        (make_feed(make_value(900, 1, 800)), "interval_length_wrong"),
        (make_feed(make_value(900, 1, "")), "interval_length_unknown"),
        (make_feed(make_value(900, 1), make_value(900, 1)), "interval_overlaps"),
        (make_feed(make_value(900, 1), make_value(1_000, 1)), "interval_overlaps"),
        (
            FEED.format(make_point(kind="") + make_reading() + make_type() + make_block(make_value(0, 1))),
            "service_not_electricity",
        ),
        (FEED.format(make_point() + make_type() + make_block(make_value(0, 1))), "meter_reading_missing"),
        (FEED.format(make_point() + make_reading() + make_block(make_value(0, 1))), "reading_type_missing"),
        (FEED.format(make_reading() + make_type() + make_block(make_value(0, 1))), "usage_point_missing"),
        (make_feed(make_value(900, 1))[:-20], "xml_malformed"),
        ("<?xml version='1.0' encoding='klingon'?><feed/>", "xml_malformed"),
        ("<html><body>Not found</body></html>", "file_not_recognised"),
        (FEED.format("<a>" * 100 + "</a>" * 100), "xml_too_deep"),
    ],
)
def test_a_feed_that_cannot_be_believed_is_refused(feed: str, reason: str) -> None:
    refusal = get_refusal(feed)
    assert refusal.startswith(f"{reason}: x:")


LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))


@pytest.mark.parametrize(
    "head",
    [
        f'<!DOCTYPE feed [<!ENTITY l0 "lol">{LAUGHS}]>',
        '<!DOCTYPE feed [<!ENTITY secret SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE feed SYSTEM "http://127.0.0.1:9/feed.dtd">',
        '<!DOCTYPE feed [<!ENTITY % remote SYSTEM "http://127.0.0.1:9/x"> %remote;]>',
        "<!DOCTYPE feed>",
    ],
)
def test_a_bomb_and_an_external_entity_are_refused_unopened(head: str) -> None:
    body = make_feed(make_value(900, "&l9;" if "l9" in head else "&secret;"))
    assert get_refusal(f"<?xml version='1.0'?>\n{head}{body}").startswith("xml_entity_refused: x:2: DOCTYPE feed")


def test_an_entity_that_nobody_declared_is_refused() -> None:
    assert get_refusal(make_feed(make_value(900, "&secret;"))).startswith("xml_malformed: x:1: undefined entity")


def test_a_token_without_end_is_refused_before_it_fills_the_memory() -> None:
    def chunks() -> list[bytes]:
        return [b"<feed title='", *([b"x" * 65_536] * 64)]

    file = make_meter_file("x", b"".join(chunks()))
    with pytest.raises(Exception, match="xml_token_too_long: x:1"):
        list(read_green_button(file))
