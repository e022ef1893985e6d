"""Random expressions over the whole language: each server computes what :func:`contraflow.expressions.evaluate` does."""

# ruff: noqa: E501, PLW0108
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import assume, given
from hypothesis import strategies as st

from contraflow import expressions as x
from tests.lens.cases import DOCUMENTS, TEXTS, TIMES
from tests.lens.conftest import Calculator, plain
from tests.sync.conftest import profile

pytestmark = pytest.mark.filterwarnings("ignore:Dialect sqlite.*does \\*not\\* support Decimal")

NUMBERS = [None, 0, 1, -1, 7, 59, 60, -60, 1000, -999_999, 10**9]
WHOLE_DOCUMENTS = DOCUMENTS[:-1]
"""Without the integer that MySQL stores as a float: what is computed from is what was stored."""
ROWS = [
    {
        "text": TEXTS[place % len(TEXTS)],
        "other": TEXTS[(place * 7 + 3) % len(TEXTS)],
        "number": NUMBERS[place % len(NUMBERS)],
        "small": NUMBERS[(place * 3 + 1) % len(NUMBERS)],
        "time": TIMES[place % len(TIMES)],
        "doc": WHOLE_DOCUMENTS[place % len(WHOLE_DOCUMENTS)],
        "flag": [True, False, None][place % 3],
    }
    for place in range(2 * len(TEXTS))
]
LITERALS = st.sampled_from(["a", "A", " ", "é", "it's", "50%", "\\", "a ", "🙂", ":x", "-12", "k"])
WHOLE = st.sampled_from([0, 1, -1, 7, 60, 1000])
Strategy = st.SearchStrategy[Any]


def _texts(row: Any, inner: Callable[[str], Strategy]) -> Strategy:
    text, number, doc = inner("text"), inner("number"), inner("doc")
    return st.one_of(
        st.builds(x.concat, text, text),
        st.builds(x.before, text, LITERALS),
        st.builds(x.after, text, LITERALS),
        st.builds(x.trim, text),
        st.builds(x.ltrim, text),
        st.builds(x.rtrim, text),
        st.builds(x.lower, text),
        st.builds(x.upper, text),
        st.builds(x.replace, text, LITERALS, LITERALS),
        st.builds(x.substr, text, st.integers(1, 4), st.integers(0, 4)),
        st.builds(x.to_text, number),
        st.builds(x.json_text, doc, st.sampled_from(["k", "other"])),
        st.builds(lambda a, b: sa.func.coalesce(a, b), text, text),
        st.builds(lambda c, a, b: sa.case((c, a), else_=b), inner("truth"), text, text),
        st.builds(lambda a: x.recode(a, {"a": "b", "it's": "\\", "A": ""}, default="?"), text),
    )


def _numbers(row: Any, inner: Callable[[str], Strategy]) -> Strategy:
    text, number = inner("text"), inner("number")
    return st.one_of(
        st.builds(x.length, text),
        st.builds(x.to_integer, text),
        st.builds(x.div, number, st.sampled_from([1, 2, 60])),
        st.builds(x.mod, number, st.sampled_from([1, 2, 60])),
        st.builds(lambda a, b: a + b, number, number),
        st.builds(lambda a, b: a - b, number, number),
        st.builds(lambda a, b: a * b, number, WHOLE),
        st.builds(lambda a: -a, number),
        st.builds(x.epoch_us, inner("time")),
        st.builds(x.json_integer, inner("doc"), st.sampled_from(["k", "other"])),
        st.builds(lambda c, a: sa.case((c, a)), inner("truth"), number),
    )


def _truths(row: Any, inner: Callable[[str], Strategy]) -> Strategy:
    text, number, truth = inner("text"), inner("number"), inner("truth")
    compared = st.one_of(st.tuples(text, text), st.tuples(number, number))
    return st.one_of(
        st.builds(x.contains, text, LITERALS),
        st.builds(x.starts_with, text, LITERALS),
        st.builds(lambda pair: pair[0] == pair[1], compared),
        st.builds(lambda pair: pair[0] != pair[1], compared),
        st.builds(lambda pair: pair[0] < pair[1], compared),
        st.builds(lambda pair: pair[0] >= pair[1], compared),
        st.builds(lambda pair: pair[0].is_distinct_from(pair[1]), compared),
        st.builds(lambda pair: pair[0].is_not_distinct_from(pair[1]), compared),
        st.builds(lambda a: a.is_(None), st.one_of(text, number)),
        st.builds(lambda a, b: a.in_([b, "a"]), text, LITERALS),
        st.builds(lambda a, b: a.not_in([b, 7]), number, WHOLE),
        st.builds(sa.and_, truth, truth),
        st.builds(sa.or_, truth, truth),
        st.builds(sa.not_, truth),
        st.builds(lambda a: sa.func.coalesce(a, sa.false()), truth),
    )


def _times(row: Any, inner: Callable[[str], Strategy]) -> Strategy:
    return st.builds(
        lambda c, a, b: sa.case((c, a), else_=b), inner("truth"), st.just(row.time), st.sampled_from(TIMES[1:])
    )


def _documents(row: Any, inner: Callable[[str], Strategy]) -> Strategy:
    return st.builds(x.json_put, inner("doc"), st.sampled_from(["k", "n"]), st.one_of(inner("text"), inner("number")))


KINDS = {"text": _texts, "number": _numbers, "truth": _truths, "time": _times, "doc": _documents}


def expressions_of(row: Any, kind: str, depth: int) -> Strategy:
    """Expressions of one kind of value, at most ``depth`` calls deep."""
    leaves: dict[str, Strategy] = {
        "text": st.one_of(st.sampled_from([row.text, row.other]), LITERALS.map(sa.literal)),
        "number": st.one_of(st.sampled_from([row.number, row.small]), WHOLE.map(sa.literal)),
        "truth": st.sampled_from([row.flag, row.text == "a", row.number.is_(None)]),
        "time": st.just(row.time),
        "doc": st.just(row.doc),
    }
    if depth == 0:
        return leaves[kind]
    inner = {name: expressions_of(row, name, depth - 1) for name in KINDS} if depth == 1 else None

    def deeper(name: str) -> Strategy:
        return inner[name] if inner else st.deferred(lambda: expressions_of(row, name, depth - 1))

    return st.one_of(leaves[kind], KINDS[kind](row, deeper))


def fits(expression: Any, row: dict[str, Any]) -> bool:
    """Whether no integer on the way leaves 64 bits: beyond, servers raise, and the declaration is refused on real rows."""
    for node in x.walk(expression):
        value = x.evaluate(node, row)
        if isinstance(value, int) and abs(value) >= 2**62:
            return False
        if isinstance(value, str) and len(value) > 10_000:
            return False
    return True


def test_server_agrees_with_evaluate(calculator: Calculator) -> None:
    calculator.store(ROWS)
    row = calculator.row
    names = [column.name for column in calculator.table.columns if column.name != "id"]
    cells = [{name: stored.get(name) for name in names} for stored in ROWS]
    chosen = profile(cheap=calculator.product == "sqlite")
    kinds = [expressions_of(row, kind, 3) for kind in KINDS]

    @chosen.__class__(chosen, max_examples=chosen.max_examples * 10)
    @given(expression=st.one_of(kinds))
    def agrees(expression: Any) -> None:
        expression = x.validate(expression)
        assume(all(fits(expression, values) for values in cells))
        wanted = [x.evaluate(expression, values) for values in cells]
        found = [value for (value,) in calculator.compute([expression])]
        for values, answer, value in zip(cells, wanted, found, strict=True):
            assert plain(value, answer) == answer, (x.describe(expression), values, calculator.sql(expression))

    agrees()
