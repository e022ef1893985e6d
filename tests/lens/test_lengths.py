"""What is said about the longest text of an expression is never too little."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from contraflow import expressions as x
from contraflow.dialects.compiler.mysql import MySQLCompiler
from contraflow.dialects.lengths import longest
from contraflow.lens import Row
from contraflow.syncs import SyncColumn
from tests.lens.test_random_expressions import ROWS, expressions_of, fits

MOST = max(len(row[name] or "") for row in ROWS for name in ("text", "other"))
NAMED = Row({"text": x.Ref("text", sa.String(MOST)), "other": x.Ref("other", sa.String(2)), "free": x.Ref("free")})
TYPED = Row(
    {
        "text": x.Ref("text", sa.String(MOST)),
        "other": x.Ref("other", sa.String(MOST)),
        "number": x.Ref("number", sa.BigInteger()),
        "small": x.Ref("small", sa.BigInteger()),
        "time": x.Ref("time", sa.DateTime()),
        "doc": x.Ref("doc", sa.JSON()),
        "flag": x.Ref("flag", sa.Boolean()),
    }
)


@given(expression=expressions_of(TYPED, "text", 2), row=st.sampled_from(ROWS))
def test_no_value_is_longer(expression: Any, row: dict[str, Any]) -> None:
    length = longest(x.validate(expression))
    if length is not None and fits(expression, row):
        assert len(x.evaluate(expression, row) or "") <= length


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (NAMED.text, MOST),
        (x.concat(NAMED.other, " ", NAMED.other), 5),
        (x.substr(x.concat(NAMED.text, NAMED.text), 1, 3), 3),
        (x.after(x.trim(NAMED.other), " "), 2),
        (sa.case((NAMED.other == "a", "abc"), else_=NAMED.other), 3),
        (x.recode(NAMED.other, {"a": "abcd"}, default=None), 4),
        (NAMED.free, None),
        (x.concat(NAMED.other, NAMED.free), None),
        (x.replace(NAMED.other, "a", "aaa"), None),
    ],
)
def test_the_longest_text_is_known(expression: Any, expected: int | None) -> None:
    assert longest(x.validate(expression)) == expected


@pytest.mark.parametrize(
    ("type_", "utf8mb4", "whole"),
    [
        (sa.String(5), True, True),
        (sa.String(4), True, False),
        (sa.CHAR(5), True, False),
        (sa.Text(), True, False),
        (sa.String(5), False, False),
    ],
)
def test_mysql_coerces_what_may_not_fit(type_: Any, utf8mb4: bool, whole: bool) -> None:
    image = x.validate(x.concat(NAMED.other, " ", NAMED.other))
    column = SyncColumn(name="text", type=type_, nullable=True)
    assert MySQLCompiler(utf8mb4=utf8mb4).is_stored_whole(image, column) is whole
