"""A record survives JSON, and says so where it cannot be read."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import uuid
from typing import Any

import pytest

from contraflow.rehearsal.record import FORMAT, Record, plain
from tests.rehearsal import records


@pytest.mark.parametrize("record", [records.passed(), records.failed()], ids=lambda record: record.verdict)
def test_a_record_survives_json(record: Record) -> None:
    assert Record.from_dict(json.loads(json.dumps(record.as_dict(), allow_nan=False))) == record


def test_keys_of_a_later_version_are_ignored() -> None:
    data = records.failed().as_dict()
    data["mood"] = "good"
    data["findings"][0]["mood"] = "bad"
    assert Record.from_dict(data) == records.failed()


def test_a_key_that_an_earlier_version_did_not_have_gets_its_default() -> None:
    data = records.failed().as_dict()
    del data["tries"], data["findings"][0]["reproduce"]
    read = Record.from_dict(data)
    assert read.tries == ()
    assert read.findings[0].reproduce is None


@pytest.mark.parametrize(
    ("change", "says"),
    [({"format": FORMAT + 1}, f"format {FORMAT + 1}"), ({"format": None}, "format None")],
)
def test_another_form_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Record.from_dict({**records.passed().as_dict(), **change})


def test_what_is_no_record_is_refused() -> None:
    with pytest.raises(ValueError, match="not a rehearsal's record"):
        Record.from_dict({"format": FORMAT, "seed": 1})


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (0.5, 0.5),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        ("ä", "ä"),
        (b"\x00\xff", "0x00ff"),
        (decimal.Decimal("1.50"), "1.50"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (dt.date(2026, 1, 2), "2026-01-02"),
        ([1, 2], "[1, 2]"),
    ],
)
def test_values_are_made_plain(value: object, shown: object) -> None:
    assert plain(value) == shown
    assert type(plain(value)) is type(shown)
