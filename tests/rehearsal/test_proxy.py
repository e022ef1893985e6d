"""What the proxy makes of a message that is to be replaced."""

from __future__ import annotations

import pytest

from contraflow.rehearsal.proxy import replaced

NEW = b"NO"
SYNC = b"S\x00\x00\x00\x04"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"Q\x00\x00\x00\x0bCOMMIT\x00", b"Q\x00\x00\x00\x07NO\x00"),
        (b"P\x00\x00\x00\x08\x00S\x00\x00" + SYNC, b"Q\x00\x00\x00\x07NO\x00"),
        (b"B\x00\x00\x00\x04E\x00\x00\x00\x04" + SYNC, b"Q\x00\x00\x00\x07NO\x00"),
        (b"\x07\x00\x00\x00\x03COMMIT", b"\x03\x00\x00\x00\x03NO"),
        (b"\x09\x00\x00\x00\x03\x00\x01COMMIT", b"\x05\x00\x00\x00\x03\x00\x01NO"),
    ],
)
def test_a_whole_statement_is_replaced(message: bytes, expected: bytes) -> None:
    assert replaced(message, NEW) == expected


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"Q\x00\x00\x00\x0bCOM",  # the rest comes later
        b"Q\x00\x00\x00\x0bCOMMIT\x00Q\x00\x00\x00\x0bCOMMIT\x00",
        b"P\x00\x00\x00\x08\x00S\x00\x00H\x00\x00\x00\x04",  # no Sync: the answer is not a whole one, either
        b"\x07\x00\x00\x00\x03COM",
        b"\x05\x00\x00\x00\x17\x01\x00\x00\x00",  # COM_STMT_EXECUTE
        b"X\x00\x00\x00\x04",
    ],
)
def test_anything_else_passes(message: bytes) -> None:
    assert replaced(message, NEW) is None
