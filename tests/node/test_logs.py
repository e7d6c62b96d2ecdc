"""Logs: a record is readable by machine or person, and never carries a secret or a stranger's control characters."""

from __future__ import annotations

import io
import json
import logging

import pytest

from node.logs import FIELD_LENGTH_MAX, Log, configure

LOG = Log("node.test")


def write_one(fmt: str, **fields: object) -> str:
    stream = io.StringIO()
    configure("info", fmt, stream=stream)
    LOG.info("block committed", **fields)
    return stream.getvalue()


def test_a_json_line_carries_the_fields_as_they_are() -> None:
    line = json.loads(write_one("json", height=5, block_id=b"\x01\xff", late=None, ok=True))
    assert line["time"].endswith("Z")
    del line["time"]
    assert line == {
        "level": "info",
        "log": "node.test",
        "event": "block committed",
        "height": 5,
        "block_id": "01ff",
        "late": None,
        "ok": True,
    }


def test_a_field_cannot_pass_for_what_a_record_is_made_of() -> None:
    line = json.loads(write_one("json", time="never"))
    assert line["field_time"] == "never"
    assert line["time"].startswith("20")


def test_a_human_line_reads_as_one_sentence() -> None:
    assert write_one("human", height=5).endswith(" info    node.test: block committed  height=5\n")


@pytest.mark.parametrize("fmt", ["json", "human"])
def test_no_secret_and_no_second_line_get_in(fmt: str) -> None:
    text = write_one(fmt, key_passphrase="hunter2", seed=b"\x01" * 32, moniker="a\nb\x1b[31m", long="x" * 10_000)
    assert "hunter2" not in text
    assert "01" * 32 not in text
    assert text.count("\n") == 1
    assert "\x1b" not in text
    assert len(text) < FIELD_LENGTH_MAX + 500


def test_a_lower_level_is_not_written_and_configuring_again_replaces() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure("debug", "human", stream=first)
    configure("warning", "human", stream=second)
    LOG.info("not this")
    LOG.warning("but this")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1
    assert "but this" in second.getvalue()


def test_a_library_is_heard_from_warnings_up() -> None:
    stream = io.StringIO()
    configure("info", "human", stream=stream)
    logging.getLogger("aiohttp.access").info("GET /")
    logging.getLogger("aiohttp.server").warning("bad request")
    assert "GET" not in stream.getvalue()
    assert "bad request" in stream.getvalue()


@pytest.mark.parametrize("fmt", ["json", "human"])
def test_an_error_shows_its_traceback(fmt: str) -> None:
    stream = io.StringIO()
    configure("info", fmt, stream=stream)
    try:
        bytes([256])
    except ValueError:
        LOG.exception("block not applied", height=5)
    assert "Traceback" in stream.getvalue()
    assert "ValueError: bytes must be in range" in stream.getvalue()
