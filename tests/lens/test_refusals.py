"""What has another meaning on another server is refused when it is declared, and the problem says what to write."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import expressions as x
from contraflow.lens import Lens, Row
from contraflow.problems import ProblemError

_TABLE = sa.table("elsewhere", sa.column("c", sa.Integer()))
_UTC = dt.timezone.utc

REFUSED: dict[str, tuple[Callable[[Row], Any], str]] = {
    "cast": (lambda row: sa.cast(row.a, sa.Integer()), "to_integer"),
    "text": (lambda _row: sa.text("now()"), "contraflow.expressions"),
    "literal_column": (lambda _row: sa.literal_column("now()"), "contraflow.expressions"),
    "a table's column": (lambda _row: _TABLE.c.c, "contraflow.expressions"),
    "subquery": (lambda _row: sa.select(_TABLE.c.c).scalar_subquery(), "contraflow.expressions"),
    "exists": (lambda _row: sa.exists(sa.select(_TABLE.c.c)), "contraflow.expressions"),
    "in a subquery": (lambda row: row.a.in_(sa.select(_TABLE.c.c)), "contraflow.expressions"),
    "aggregate": (lambda row: sa.func.max(row.a), "contraflow.expressions"),
    "window": (lambda row: sa.func.row_number().over(order_by=row.a), "contraflow.expressions"),
    "now": (lambda _row: sa.func.now(), "utcnow"),
    "current_timestamp": (lambda _row: sa.func.current_timestamp(), "utcnow"),
    "lower": (lambda row: sa.func.lower(row.a), "contraflow.expressions.lower"),
    "upper": (lambda row: sa.func.upper(row.a), "contraflow.expressions.upper"),
    "length": (lambda row: sa.func.length(row.a), "contraflow.expressions.length"),
    "char_length": (lambda row: sa.func.char_length(row.a), "contraflow.expressions.length"),
    "concat": (lambda row: sa.func.concat(row.a, "x"), "contraflow.expressions.concat"),
    "substr": (lambda row: sa.func.substr(row.a, 1, 2), "contraflow.expressions.substr"),
    "trim": (lambda row: sa.func.trim(row.a), "contraflow.expressions.trim"),
    "replace": (lambda row: sa.func.replace(row.a, "a", "b"), "contraflow.expressions.replace"),
    "instr": (lambda row: sa.func.instr(row.a, "x"), "contraflow.expressions"),
    "nullif": (lambda row: sa.func.nullif(row.a, ""), "case("),
    "greatest": (lambda row: sa.func.greatest(row.a, 1), "case("),
    "random": (lambda _row: sa.func.random(), "contraflow.expressions"),
    "extract": (lambda row: sa.extract("year", row.a), "contraflow.expressions"),
    "/": (lambda row: row.a / 2, "div("),
    "//": (lambda row: row.a // 2, "div("),
    "%": (lambda row: row.a % 2, "mod("),
    "like": (lambda row: row.a.like("x%"), "contraflow.expressions"),
    "startswith of SQLAlchemy": (lambda row: row.a.startswith("x"), "contraflow.expressions"),
    "regexp_match": (lambda row: row.a.regexp_match("x"), "contraflow.expressions"),
    "between": (lambda row: row.a.between(1, 2), "contraflow.expressions"),
    "collate": (lambda row: sa.collate(row.a, "C"), "contraflow.expressions"),
    "op": (lambda row: row.a.op("<=>")(1), "contraflow.expressions"),
    "case with a value": (lambda row: sa.case({"a": 1}, value=row.a), "case((column == literal"),
    "a float": (lambda _row: 0.1, "contraflow.expressions"),
    "bytes": (lambda _row: b"x", "contraflow.expressions"),
    "a date": (lambda _row: sa.literal(dt.date(2024, 1, 1)), "contraflow.expressions"),
    "a time span": (lambda _row: sa.literal(dt.timedelta(1)), "contraflow.expressions"),
    "a document": (lambda _row: sa.literal({"a": 1}, sa.JSON()), "contraflow.expressions"),
    "a time with a zone": (lambda _row: dt.datetime(2024, 1, 1, tzinfo=_UTC), "contraflow.expressions"),
    "not a number": (lambda _row: Decimal("NaN"), "contraflow.expressions"),
    "an integer of 65 bits": (lambda _row: 2**63, "contraflow.expressions"),
    "a NUL character": (lambda _row: "a\x00b", "contraflow.expressions"),
    "half a character": (lambda _row: "\ud83d", "contraflow.expressions"),
    "an empty separator": (lambda row: x.before(row.a, ""), "contraflow.expressions.before"),
    "a separator from a column": (lambda row: x.after(row.a, row.a), "contraflow.expressions.after"),  # type: ignore[arg-type]
    "substr from 0": (lambda row: x.substr(row.a, 0, 1), "contraflow.expressions.substr"),
    "div by 0": (lambda row: x.div(row.a, 0), "contraflow.expressions.div"),
    "div by a negative number": (lambda row: x.div(row.a, -2), "contraflow.expressions.div"),
    "mod of a column": (lambda row: x.mod(row.a, row.a), "contraflow.expressions.mod"),  # type: ignore[arg-type]
    "a key with a dot": (lambda row: x.json_text(row.a, "a.b"), "contraflow.expressions.json_text"),
    "a key with a quote": (lambda row: x.json_put(row.a, "a'b", 1), "contraflow.expressions.json_put"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_when_declared(name: str) -> None:
    build, instead = REFUSED[name]
    with pytest.raises(ProblemError) as caught:
        Lens(old=["a"], new=["b"], forward=lambda row: {"b": build(row)}, backward=lambda row: {"a": row.b})
    (problem,) = caught.value.problems
    assert problem.code == "CF103"
    assert instead in problem.instead


@pytest.mark.parametrize("name", REFUSED)
def test_refused_inside_another_expression(name: str) -> None:
    """Refusals look into every corner of an expression, not at its top alone."""
    build, _ = REFUSED[name]
    for wrap in (
        lambda value: sa.func.coalesce(value, None),
        lambda value: x.concat("a", value),
        lambda value: sa.case((sa.true(), value), else_=None),
    ):
        with pytest.raises(ProblemError) as caught:
            Lens(old=["a"], new=["b"], forward=lambda row, wrap=wrap: {"b": wrap(build(row))})  # type: ignore[misc]
        assert {problem.code for problem in caught.value.problems} == {"CF103"}


def test_columns_that_are_not_declared() -> None:
    with pytest.raises(ProblemError, match="CF102"):
        Lens(old=["a"], new=["b"], forward=lambda row: {"b": row.c})
    with pytest.raises(ProblemError, match="CF102"):
        Lens(old=["a"], new=["b"], forward=lambda row: {"c": row.a})


def test_sums_of_three_are_of_the_language() -> None:
    """SQLAlchemy keeps ``a + b + c`` as one flat list; it means the same as ``(a + b) + c``."""
    row = Row({"a": x.Ref("a", sa.String()), "n": x.Ref("n", sa.Integer())})
    for expression, value in ((row.a + "-" + row.a + "!", "x-x!"), (row.n + 1 + 2 + row.n, 13), (row.n * 2 * 3, 30)):
        assert x.evaluate(x.validate(expression), {"a": "x", "n": 5}) == value
    assert x.describe((row.n + 1) + 2) == x.describe(row.n + 1 + 2)


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(lambda row: {"b": row.a or "x"}, id="or"),
        pytest.param(lambda row: {"b": f"{row.a.upper()}"}, id="a method of str"),
        pytest.param(lambda _row: None, id="nothing returned"),
    ],
)
def test_python_instead_of_expressions(image: Any) -> None:
    with pytest.raises(ProblemError) as raised:
        Lens(old=["a"], new=["b"], forward=image)
    assert [problem.code for problem in raised.value.problems] == ["CF103"]
