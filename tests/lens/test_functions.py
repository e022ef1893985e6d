"""Every function and operator of the lens language means on each server what is written down by hand."""

# ruff: noqa: DTZ001, E501  # tables of cases; lens time is UTC without a zone
from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import expressions
from contraflow.lens import Row
from tests.lens.cases import CASES, columns
from tests.lens.conftest import Calculator, plain

# SQLite keeps decimals as floats, and SQLAlchemy says so whenever a Numeric column is used.
pytestmark = pytest.mark.filterwarnings("ignore:Dialect sqlite.*does \\*not\\* support Decimal")

OPERATORS = {
    "add", "sub", "mul", "neg", "eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "not_", "case", "coalesce", "in_", "not_in",
    "is_", "is_not", "is_distinct_from", "is_not_distinct_from", "literal", "ref",
}  # fmt: skip


def test_every_function_and_operator_has_cases() -> None:
    """A function without a hand-written meaning is not in the language."""
    covered = {name for case in CASES for name in case.functions}
    assert set(expressions.FUNCTIONS) - {"utcnow"} <= covered
    assert covered <= set(expressions.FUNCTIONS) | OPERATORS | {"+"}
    assert covered >= OPERATORS


def test_python_meaning() -> None:
    """``evaluate`` gives the hand-written answers."""
    types = {column.name: column.type for column in columns("sqlite")}
    row = Row({name: expressions.Ref(name, type_) for name, type_ in types.items()})
    for case in CASES:
        expression = expressions.validate(case.build(row))
        for cells, answer in case.answers:
            value = expressions.evaluate(expression, {name: cells.get(name) for name in types})
            assert (value, type(value)) == (answer, type(answer)), (case.title, cells)


def test_server_meaning(calculator: Calculator) -> None:
    """Each server gives the hand-written answers."""
    wrong: list[Any] = []
    for case in CASES:
        calculator.store([cells for cells, _ in case.answers])
        expression = expressions.validate(case.build(calculator.row))
        try:
            found = calculator.compute([expression])
        except sa.exc.DBAPIError as error:
            wrong.append((case.title, str(error.orig), calculator.sql(expression)))
            continue
        for (cells, answer), (value,) in zip(case.answers, found, strict=True):
            if plain(value, answer) != answer:
                wrong.append((case.title, dict(cells), "wanted", answer, "got", value))
    assert not wrong, "\n".join(map(str, wrong))


ZONES = {
    "postgresql": ["SET TIME ZONE 'Asia/Kolkata'"],
    "mysql": ["SET time_zone = '+05:30'"],
    "mariadb": ["SET time_zone = '+05:30'"],
}


def test_time_is_utc_in_every_session(calculator: Calculator) -> None:
    """A session's time zone changes neither the clock nor the arithmetic of time."""
    moment = dt.datetime(2024, 3, 31, 2, 30, 0, 123_456)
    calculator.store([{"time": moment}])
    row = calculator.row
    now, microseconds, back = calculator.compute(
        [
            expressions.utcnow(),
            expressions.epoch_us(row.time),
            expressions.from_epoch_us(expressions.epoch_us(row.time)),
        ],
        before=ZONES.get(calculator.product, []),
    )[0]
    assert plain(microseconds, 0) == (moment - dt.datetime(1970, 1, 1)) // dt.timedelta(microseconds=1)
    assert plain(back, moment) == moment
    # A wrong zone is wrong by half an hour at least; a slow machine is not.
    distance = plain(now, moment) - dt.datetime.now(dt.timezone.utc).replace(tzinfo=None)
    assert abs(distance) < dt.timedelta(minutes=10)


MODES = {
    "postgresql": ["SET standard_conforming_strings = off", "SET escape_string_warning = off"],
    "mysql": ["SET sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES,PIPES_AS_CONCAT,STRICT_ALL_TABLES'"],
    "mariadb": ["SET sql_mode = 'NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT,STRICT_ALL_TABLES'"],
}


def test_literals_do_not_depend_on_the_session(calculator: Calculator) -> None:
    """Backslashes, quotes and percent signs in literals mean themselves under every escaping mode."""
    texts = ["a\\b", "\\", "\\'", "it's", "50%", "%s", "%%", '"', "`", ":x", "?", "\\n", "\n", "𝒳\\", "--", "/*"]
    calculator.store([{"text": "-"}])
    expressions_ = [expressions.concat(calculator.row.text, text) for text in texts]
    for before in ([], MODES.get(calculator.product, [])):
        found = calculator.compute(expressions_, before=before)[0]
        assert list(found) == [f"-{text}" for text in texts]
