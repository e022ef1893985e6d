"""What every function and operator of the lens language means, written out by hand as input and answer.

A case is an expression over the row below and a list of (row, answer). Rows give only the columns that matter.
"""

# ruff: noqa: DTZ001, E501  # tables of cases; lens time is UTC without a zone
from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from contraflow import expressions as x
from contraflow.lens import Row

__all__ = ["CASES", "DOCUMENTS", "TEXTS", "TIMES", "Case", "columns"]

Answer = Any
Cells = Mapping[str, Any]


def columns(product: str, collation: str | None = None) -> list[sa.Column[Any]]:
    """The columns of the row that all cases read; all may be NULL."""
    if product in ("mysql", "mariadb"):
        from sqlalchemy.dialects import mysql

        time: sa.types.TypeEngine[Any] = mysql.DATETIME(fsp=6)
        text: sa.types.TypeEngine[Any] = mysql.VARCHAR(200, collation=collation)
    else:
        time = sa.DateTime()
        text = sa.String(200, collation=collation)
    return [
        sa.Column("text", text),
        sa.Column("other", sa.Text()),
        sa.Column("number", sa.BigInteger()),
        sa.Column("small", sa.Integer()),
        sa.Column("amount", sa.Numeric(18, 6)),
        sa.Column("time", time),
        sa.Column("doc", sa.JSON(none_as_null=True)),
        sa.Column("flag", sa.Boolean()),
    ]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One expression and its answers."""

    title: str
    functions: tuple[str, ...]
    build: Callable[[Row], Any]
    answers: tuple[tuple[Cells, Answer], ...]


CASES: list[Case] = []


def case(
    title: str, build: Callable[[Row], Any], *answers: tuple[Any, Answer], on: str = "text", functions: str = ""
) -> None:
    """Declare a case; a row that is not a mapping is the value of the column ``on``."""
    rows = tuple(
        (cells if isinstance(cells, Mapping) and on != "doc" else {on: cells}, answer) for cells, answer in answers
    )
    CASES.append(
        Case(
            title=title, functions=tuple(functions.split()) or (title.split(maxsplit=1)[0],), build=build, answers=rows
        )
    )


def documents(title: str, build: Callable[[Row], Any], *answers: tuple[Any, Answer], functions: str = "") -> None:
    """A case over documents, which are mappings themselves."""
    CASES.append(
        Case(
            title=title,
            functions=tuple(functions.split()) or (title.split(maxsplit=1)[0],),
            build=build,
            answers=tuple(({"doc": document}, answer) for document, answer in answers),
        )
    )


TEXTS = [
    None, "", " ", "   ", "a", "A", "b", " a", "a ", " a b ", "a b", "a  b c", "A B", "aXb", "axb", "XX", "X",
    "it's", "''", '"q"', "50%", "%s %(x)s", "100%%", "a\\b", "\\", "\\'", "x\ny", "\ttab\t", "\u00a0nbsp\u00a0",
    "é", "e\u0301", "É", "ß", "İ", "ÄÖÜ äöü", "𝒳 y", "🙂", "🙂 🙂", "\uffee", "\U00010000", ":name", "?", "$1", "`tick`",
    "-12", "007", "+5", "12\n", " 12", "1.5", "１２", "9" * 18, "-" + "9" * 18, "9" * 19, "-", "-0", "0",
]  # fmt: skip
"""Text that has broken something somewhere."""

TIMES = [
    None,
    dt.datetime(1970, 1, 1),
    dt.datetime(1969, 12, 31, 23, 59, 59, 500_000),
    dt.datetime(1901, 1, 1, 1, 2, 3),
    dt.datetime(2038, 1, 19, 3, 14, 8),
    dt.datetime(2024, 2, 29, 12, 0, 0, 1),
    dt.datetime(2024, 3, 31, 1, 30, 0, 999_999),
    dt.datetime(9999, 12, 31, 23, 59, 59, 999_999),
]

DOCUMENTS: list[Any] = [
    None, {}, {"k": "v"}, {"k": ""}, {"k": 5}, {"k": -5}, {"k": 0}, {"k": True}, {"k": None}, {"k": 1.5}, {"k": 100.0},
    {"k": "5"}, {"k": {"n": "v"}}, {"k": ["v"]}, {"K": "other case"}, {"other": "v", "nested": {"k": "inner"}}, [1, "k"],
    {"k": "it's 50% a\\b \"q\" \n 🙂 𝒳 e\u0301"}, {"k": 10**18 - 1}, {"k": -(10**18) + 1}, {"k": 10**18}, {"k": 10**25},
]  # fmt: skip

# --- text ---------------------------------------------------------------------------------------------------------

case(
    "concat of columns",
    lambda row: x.concat(row.text, "-", row.other),
    ({"text": "a", "other": "b"}, "a-b"),
    ({"text": "", "other": ""}, "-"),
    ({"text": None, "other": "b"}, None),
    ({"text": "a", "other": None}, None),
    ({"text": "a ", "other": " 𝒳"}, "a - 𝒳"),
    ({"text": "it's", "other": "50% \\"}, "it's-50% \\"),
)
case(
    "concat of odd literals",
    lambda row: x.concat(row.text, "'\\%s\"🙂 :x ?"),
    ("a", "a'\\%s\"🙂 :x ?"),
    ("", "'\\%s\"🙂 :x ?"),
)
case("concat of one", lambda row: x.concat(row.text), ("a ", "a "), (None, None), ("", ""))
case(
    "before a space",
    lambda row: x.before(row.text, " "),
    ("a b c", "a"), ("ab", "ab"), ("", ""), (" a", ""), ("a ", "a"), (None, None), ("🙂 𝒳", "🙂"), ("   ", ""), ("x\ny z", "x\ny"),
)  # fmt: skip
case("before a letter", lambda row: x.before(row.text, "x"), ("aXbxc", "aXb"), ("aXb", "aXb"), ("x", ""), ("é", "é"))
case("before a word", lambda row: x.before(row.text, "::"), ("a::b::c", "a"), ("a:b", "a:b"), ("a:::b", "a"))
case("before a percent sign", lambda row: x.before(row.text, "%"), ("50% off", "50"), ("50", "50"))
case("before a backslash", lambda row: x.before(row.text, "\\"), ("a\\b", "a"), ("ab", "ab"))
case("before a combining mark", lambda row: x.before(row.text, "\u0301"), ("e\u0301x", "e"), ("éx", "éx"))
case(
    "after a space",
    lambda row: x.after(row.text, " "),
    ("a b c", "b c"), ("ab", ""), ("", ""), (" a", "a"), ("a ", ""), (None, None), ("🙂 𝒳", "𝒳"), ("   ", "  "), ("x\ny z ", "z "),
)  # fmt: skip
case("after a letter", lambda row: x.after(row.text, "x"), ("aXbxc", "c"), ("aXb", ""), ("x", ""), ("xx", "x"))
case("after a word", lambda row: x.after(row.text, "::"), ("a::b::c", "b::c"), ("a:", ""), ("a:::b", ":b"), (":", ""))
case("after a quote", lambda row: x.after(row.text, "'"), ("it's", "s"), ("its", ""))
case("after a pictogram", lambda row: x.after(row.text, "🙂"), ("a🙂𝒳b", "𝒳b"), ("ab", ""))
for name, function, expected in (
    ("trim", x.trim, ("a b", "", "", "\ta\t", "\u00a0a\u00a0", "a", "x\n")),
    ("ltrim", x.ltrim, ("a b  ", "", "", "\ta\t", "\u00a0a\u00a0", "a ", "x\n ")),
    ("rtrim", x.rtrim, ("  a b", "", "", "\ta\t", "\u00a0a\u00a0", "a", "x\n")),
):
    given = ("  a b  ", "", "   ", "\ta\t", "\u00a0a\u00a0", "a ", "x\n ")
    case(name, lambda row, function=function: function(row.text), (None, None), *zip(given, expected, strict=True))  # type: ignore[misc]
case(
    "lower",
    lambda row: x.lower(row.text),
    ("ABC xyz", "abc xyz"), ("ÄÉİẞ", "ÄÉİẞ"), ("", ""), (None, None), ("E\u0301", "e\u0301"), ("K\u212a", "k\u212a"),
    ("ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]", "abcdefghijklmnopqrstuvwxyz[\\]"), ("𝒳A", "𝒳a"), ("A ", "a "),
)  # fmt: skip
case(
    "upper",
    lambda row: x.upper(row.text),
    ("abc XYZ", "ABC XYZ"), ("äéıßſ", "äéıßſ"), ("", ""), (None, None), ("e\u0301", "E\u0301"),
    ("abcdefghijklmnopqrstuvwxyz{|}", "ABCDEFGHIJKLMNOPQRSTUVWXYZ{|}"), ("a ", "A "),
)  # fmt: skip
case(
    "replace",
    lambda row: x.replace(row.text, "a", "bb"),
    ("banana", "bbbnbbnbb"), ("BANANA", "BANANA"), ("", ""), (None, None), ("á", "á"), ("a\u0301", "bb\u0301"),
)  # fmt: skip
case("replace away", lambda row: x.replace(row.text, " ", ""), (" a b ", "ab"), ("   ", ""), ("\u00a0", "\u00a0"))
case("replace a quote by a backslash", lambda row: x.replace(row.text, "'", "\\%"), ("it's", "it\\%s"))
case("replace overlapping", lambda row: x.replace(row.text, "aa", "a"), ("aaaaa", "aaa"))
case(
    "substr",
    lambda row: x.substr(row.text, 2, 3),
    ("abcdef", "bcd"), ("ab", "b"), ("a", ""), ("", ""), (None, None), ("🙂𝒳yz1", "𝒳yz"), ("e\u0301xyz", "\u0301xy"), ("    ", "   "),
)  # fmt: skip
case("substr of nothing", lambda row: x.substr(row.text, 1, 0), ("abc", ""), (None, None))
case(
    "length",
    lambda row: x.length(row.text),
    ("", 0), ("abc", 3), ("a ", 2), ("🙂", 1), ("𝒳y", 2), ("e\u0301", 2), (None, None), ("x\ny", 3), ("   ", 3),
)  # fmt: skip
case(
    "contains",
    lambda row: x.contains(row.text, "a "),
    ("xa y", True), ("xA y", False), ("a", False), ("", False), (None, None), ("á ", False), ("a ", True),
)  # fmt: skip
case("contains a percent sign", lambda row: x.contains(row.text, "%"), ("50%", True), ("50", False))
case("contains an underscore", lambda row: x.contains(row.text, "_"), ("a_b", True), ("ab", False))
case(
    "contains a letter with mark", lambda row: x.contains(row.text, "é"), ("é", True), ("e\u0301", False), ("e", False)
)
case(
    "starts_with",
    lambda row: x.starts_with(row.text, "Ab"),
    ("Abc", True), ("abc", False), ("A", False), ("", False), (None, None), ("Ab", True), (" Ab", False), ("Áb", False),
)  # fmt: skip
case("starts_with a space", lambda row: x.starts_with(row.text, "a "), ("a ", True), ("a", False), ("a  ", True))

# --- numbers ------------------------------------------------------------------------------------------------------

case(
    "to_integer",
    lambda row: x.to_integer(row.text),
    ("0", 0), ("12", 12), ("-12", -12), ("007", 7), ("-0", 0), ("+5", None), ("", None), ("-", None), (" 1", None), ("1 ", None),
    ("1.5", None), ("1e3", None), ("0x10", None), ("١٢", None), ("１", None), ("12\n", None), ("1\n2", None), (None, None), ("--1", None), ("1-", None),
    ("9" * 18, 999_999_999_999_999_999), ("-" + "9" * 18, -999_999_999_999_999_999), ("9" * 19, None), ("0" * 19, None),
)  # fmt: skip
case(
    "to_text",
    lambda row: x.to_text(row.number),
    (0, "0"), (-12, "-12"), (2**63 - 1, "9223372036854775807"), (-(2**63), "-9223372036854775808"), (None, None),
    on="number",
)  # fmt: skip
case(
    "div",
    lambda row: x.div(row.number, 60),
    (0, 0), (59, 0), (60, 1), (-1, -1), (-60, -1), (-61, -2), (None, None), (2**63 - 1, 153722867280912930), (-(2**63), -153722867280912931),
    on="number",
)  # fmt: skip
case(
    "div of a small integer",
    lambda row: x.div(row.small, 7),
    (2**31 - 1, 306783378),
    (-(2**31), -306783379),
    on="small",
)
case(
    "mod",
    lambda row: x.mod(row.number, 60),
    (0, 0), (59, 59), (60, 0), (-1, 59), (-60, 0), (-61, 59), (None, None), (2**63 - 1, 7), (-(2**63), 52),
    on="number",
)  # fmt: skip
case(
    "decimal_shift",
    lambda row: x.decimal_shift(row.number, 2),
    (0, Decimal(0)), (1, Decimal("0.01")), (-5, Decimal("-0.05")), (1005, Decimal("10.05")), (None, None), (123456789012345, Decimal("1234567890123.45")),
    on="number",
)  # fmt: skip
case(
    "to_minor_units",
    lambda row: x.to_minor_units(row.amount, 2),
    (Decimal(0), 0), (Decimal("1.005"), 101), (Decimal("1.004999"), 100), (Decimal("-1.005"), -101), (Decimal("0.005"), 1), (Decimal("-0.005"), -1),
    (Decimal("2.675"), 268), (Decimal("1234567.895"), 123456790), (Decimal("99999999.99"), 9999999999), (None, None), (Decimal("10.05"), 1005),
    (Decimal("8.165"), 817), (Decimal("1.115"), 112),
    on="amount",
)  # fmt: skip

# --- time ---------------------------------------------------------------------------------------------------------

case(
    "epoch_us",
    lambda row: x.epoch_us(row.time),
    (None, None), (dt.datetime(1970, 1, 1), 0), (dt.datetime(1969, 12, 31, 23, 59, 59, 500_000), -500_000), (dt.datetime(1969, 12, 31), -86_400_000_000),
    (dt.datetime(2024, 2, 29, 12, 0, 0, 1), 1_709_208_000_000_001), (dt.datetime(2038, 1, 19, 3, 14, 8), 2_147_483_648_000_000),
    (dt.datetime(9999, 12, 31, 23, 59, 59, 999_999), 253_402_300_799_999_999), (dt.datetime(2024, 3, 31, 2, 30), 1_711_852_200_000_000),
    (dt.datetime(1900, 1, 1, 0, 0, 0, 7), -2_208_988_799_999_993),
    on="time",
)  # fmt: skip
case(
    "from_epoch_us",
    lambda row: x.from_epoch_us(row.number),
    (None, None), (0, dt.datetime(1970, 1, 1)), (-1, dt.datetime(1969, 12, 31, 23, 59, 59, 999_999)), (-500_000, dt.datetime(1969, 12, 31, 23, 59, 59, 500_000)),
    (1_709_208_000_000_001, dt.datetime(2024, 2, 29, 12, 0, 0, 1)), (253_402_300_799_999_999, dt.datetime(9999, 12, 31, 23, 59, 59, 999_999)),
    (1_711_852_200_000_000, dt.datetime(2024, 3, 31, 2, 30)), (-2_208_988_799_999_993, dt.datetime(1900, 1, 1, 0, 0, 0, 7)),
    on="number",
)  # fmt: skip
case(
    "from_epoch_us of seconds",
    lambda row: x.from_epoch_us(row.small * 1_000_000),
    (2**31 - 1, dt.datetime(2038, 1, 19, 3, 14, 7)),
    on="small",
)

# --- JSON objects ---------------------------------------------------------------------------------------------------

_ODD = 'it\'s 50% a\\b "q" \n 🙂 𝒳 e\u0301'
documents(
    "json_text",
    lambda row: x.json_text(row.doc, "k"),
    (None, None), ({}, None), ({"k": "v"}, "v"), ({"k": ""}, ""), ({"k": 5}, None), ({"k": True}, None), ({"k": None}, None), ({"k": "5"}, "5"),
    ({"k": {"n": 1}}, None), ({"k": ["v"]}, None), ({"K": "v"}, None), ([1, "k"], None), ({"k": _ODD}, _ODD), ({"n": {"k": "v"}}, None), ({"k": "null"}, "null"),
)  # fmt: skip
documents(
    "json_integer",
    lambda row: x.json_integer(row.doc, "k"),
    (None, None), ({}, None), ({"k": 5}, 5), ({"k": -5}, -5), ({"k": 0}, 0), ({"k": "5"}, None), ({"k": True}, None), ({"k": False}, None), ({"k": None}, None),
    ({"k": 1.5}, None), ({"k": 100.0}, None), ({"k": [5]}, None), ({"k": 10**18 - 1}, 10**18 - 1), ({"k": -(10**18) + 1}, -(10**18) + 1),
    ({"k": 10**18}, None), ({"k": 10**25}, None), ({"k": -(2**63)}, None), ([5], None),
)  # fmt: skip
case(
    "json_put of text",
    lambda row: x.json_put(row.doc, "k", row.text),
    ({"doc": None, "text": "v"}, {"k": "v"}),
    ({"doc": None, "text": None}, {}),
    ({"doc": {}, "text": ""}, {"k": ""}),
    ({"doc": {"k": 1, "other": {"k": [1, None, "x"]}}, "text": "v"}, {"k": "v", "other": {"k": [1, None, "x"]}}),
    ({"doc": {"k": "old", "o": None}, "text": None}, {"o": None}),
    ({"doc": {"K": 1}, "text": "v"}, {"K": 1, "k": "v"}),
    ({"doc": [1], "text": "v"}, {"k": "v"}),
    ({"doc": {"k": {"deep": 1}}, "text": _ODD}, {"k": _ODD}),
    ({"doc": {"🙂": "é"}, "text": "5"}, {"🙂": "é", "k": "5"}),
    ({"doc": {"a": 1.5, "b": True, "c": 10**17}, "text": "true"}, {"a": 1.5, "b": True, "c": 10**17, "k": "true"}),
)
case(
    "json_put of an integer",
    lambda row: x.json_put(row.doc, "k", row.number),
    ({"doc": {"a": "x"}, "number": 5}, {"a": "x", "k": 5}),
    ({"doc": {"k": "x"}, "number": -(10**17)}, {"k": -(10**17)}),
    ({"doc": {"k": "x"}, "number": None}, {}),
)
case(
    "json_put twice",
    lambda row: x.json_put(x.json_put(row.doc, "k", row.text), "n", row.number),
    ({"doc": {"z": 1}, "text": "v", "number": 2}, {"z": 1, "k": "v", "n": 2}),
    ({"doc": {"z": 1, "k": 1, "n": 1}, "text": None, "number": None}, {"z": 1}),
)
case(
    "json_put read back",
    lambda row: x.json_text(x.json_put(row.doc, "k", row.text), "k"),
    ({"doc": {}, "text": _ODD}, _ODD), ({"doc": None, "text": None}, None), ({"doc": {"k": 3}, "text": "a "}, "a "),
    functions="json_put json_text",
)  # fmt: skip
case("json_put of a literal", lambda row: x.json_put(row.doc, "k", "it's \\ 5%"), ({"doc": {}}, {"k": "it's \\ 5%"}))

# --- operators --------------------------------------------------------------------------------------------------------

_PAIRS: list[tuple[str | None, str | None]] = [
    ("a", "a"), ("a", "A"), ("a", "b"), ("B", "a"), ("a", "a "), ("", " "), ("", ""), ("é", "e\u0301"), ("e", "é"), ("ß", "ss"),
    ("\uffee", "\U00010000"), ("a", "a\n"), (None, "a"), ("a", None), (None, None), ("\\", "\\\\"), ("Z", "é"),
]  # fmt: skip


def _compare(test: Callable[[str, str], bool]) -> list[tuple[Cells, Answer]]:
    return [
        ({"text": left, "other": right}, None if left is None or right is None else test(left, right))
        for left, right in _PAIRS
    ]


case("== of text", lambda row: row.text == row.other, *_compare(lambda a, b: a.encode() == b.encode()), functions="eq")
case("!= of text", lambda row: row.text != row.other, *_compare(lambda a, b: a.encode() != b.encode()), functions="ne")
case("< of text", lambda row: row.text < row.other, *_compare(lambda a, b: a.encode() < b.encode()), functions="lt")
case("<= of text", lambda row: row.text <= row.other, *_compare(lambda a, b: a.encode() <= b.encode()), functions="le")
case("> of text", lambda row: row.text > row.other, *_compare(lambda a, b: a.encode() > b.encode()), functions="gt")
case(">= of text", lambda row: row.text >= row.other, *_compare(lambda a, b: a.encode() >= b.encode()), functions="ge")
case(
    "is_distinct_from of text",
    lambda row: row.text.is_distinct_from(row.other),
    *[
        (
            {"text": a, "other": b},
            (a is None) != (b is None) or (a is not None and b is not None and a.encode() != b.encode()),
        )
        for a, b in _PAIRS
    ],
    functions="is_distinct_from",
)
case(
    "is_not_distinct_from of text",
    lambda row: row.text.is_not_distinct_from(row.other),
    *[
        (
            {"text": a, "other": b},
            (a is None and b is None) or (a is not None and b is not None and a.encode() == b.encode()),
        )
        for a, b in _PAIRS
    ],
    functions="is_not_distinct_from",
)
case(
    "== of a literal",
    lambda row: row.text == "a",
    ("a", True),
    ("A", False),
    ("a ", False),
    (None, None),
    functions="eq",
)
case("+ of text", lambda row: row.text + "!" + row.text, ("a", "a!a"), (None, None), ("", "!"), functions="add")
case(
    "== of a function",
    lambda row: x.lower(row.text) == row.text,
    ("a", True),
    ("A", False),
    (None, None),
    functions="eq",
)
case(
    "in_",
    lambda row: row.text.in_(["a", "it's", "\\"]),
    ("a", True),
    ("A", False),
    ("it's", True),
    ("\\", True),
    ("a ", False),
    (None, None),
)
case("in_ nothing", lambda row: row.text.in_([]), ("a", False), ("", False), functions="in_")
case("not_in", lambda row: row.text.not_in(["a", "b"]), ("a", False), ("A", True), (None, None), functions="not_in")
case(
    "in_ of integers",
    lambda row: row.number.in_([1, -2]),
    (1, True),
    (-2, True),
    (2, False),
    (None, None),
    on="number",
    functions="in_",
)
case(
    "arithmetic",
    lambda row: (row.number + 1) * 3 - row.small,
    ({"number": 2, "small": 4}, 5), ({"number": None, "small": 4}, None), ({"number": -1, "small": None}, None), ({"number": 10**12, "small": -5}, 3 * 10**12 + 8),
    functions="add sub mul",
)  # fmt: skip
case(
    "precedence",
    lambda row: row.number - (row.small - 1) * (row.number + 2),
    ({"number": 5, "small": 3}, -9),
    functions="sub mul add",
)
case(
    "small integers do not overflow",
    lambda row: row.small * 1000 + row.small,
    (2**31 - 1, 2149631130647),
    (-(2**31), -2149631131648),
    on="small",
    functions="mul add",
)
case("negation", lambda row: -row.number, (5, -5), (-5, 5), (0, 0), (None, None), on="number", functions="neg")
case("minus of a negative literal", lambda row: row.number - -3, (1, 4), on="number", functions="sub")
for sign, test in (
    ("eq", lambda a, b: a == b), ("ne", lambda a, b: a != b), ("lt", lambda a, b: a < b), ("le", lambda a, b: a <= b), ("gt", lambda a, b: a > b), ("ge", lambda a, b: a >= b),
):  # fmt: skip
    case(
        f"{sign} of integers",
        lambda row, test=test: test(row.number, 5),  # type: ignore[misc]
        (4, test(4, 5)),  # type: ignore[no-untyped-call]
        (5, test(5, 5)),  # type: ignore[no-untyped-call]
        (6, test(6, 5)),  # type: ignore[no-untyped-call]
        (None, None),
        on="number",
        functions=sign,
    )
    case(
        f"{sign} of times",
        lambda row, test=test: test(row.time, dt.datetime(2024, 1, 1, 12)),  # type: ignore[misc]
        *[(value, test(value, dt.datetime(2024, 1, 1, 12))) for value in (dt.datetime(2024, 1, 1, 11, 59, 59, 999_999), dt.datetime(2024, 1, 1, 12), dt.datetime(2024, 1, 1, 12, 0, 0, 1))],  # type: ignore[no-untyped-call]
        (None, None),
        on="time",
        functions=sign,
    )  # fmt: skip
    case(
        f"{sign} of decimals",
        lambda row, test=test: test(row.amount, Decimal("1.5")),  # type: ignore[misc]
        *[(value, test(value, Decimal("1.5"))) for value in (Decimal("1.4"), Decimal("1.50"), Decimal(10), Decimal(-2))],  # type: ignore[no-untyped-call]
        (None, None),
        on="amount",
        functions=sign,
    )  # fmt: skip
# Each of these differs from the answer in the last place of an 8-byte float.
case(
    "add, sub and mul of decimals",
    lambda row: (row.amount + Decimal("0.2")) * 3 - Decimal("0.3"),
    (Decimal("0.1"), Decimal("0.6")),
    (Decimal("1.1"), Decimal("3.6")),
    (Decimal("-0.3"), Decimal("-0.6")),
    (Decimal(4), Decimal("12.3")),
    (None, None),
    on="amount",
    functions="add sub mul",
)
_THREE = [True, False, None]
case(
    "and_",
    lambda row: sa.and_(row.flag, row.number > 0),
    *[
        (
            {"flag": left, "number": {True: 1, False: -1, None: None}[right]},
            False if False in (left, right) else None if None in (left, right) else True,
        )
        for left in _THREE
        for right in _THREE
    ],
)
case(
    "or_",
    lambda row: sa.or_(row.flag, row.number > 0),
    *[
        (
            {"flag": left, "number": {True: 1, False: -1, None: None}[right]},
            True if True in (left, right) else None if None in (left, right) else False,
        )
        for left in _THREE
        for right in _THREE
    ],
)
case("not_", lambda row: sa.not_(row.flag), (True, False), (False, True), (None, None), on="flag")
case(
    "not_ of a comparison", lambda row: ~(row.text == "a"), ("a", False), ("A", True), (None, None), functions="not_ ne"
)
case(
    "not_ of and_",
    lambda row: ~sa.and_(row.flag, row.number > 0),
    ({"flag": True, "number": 1}, False),
    ({"flag": False, "number": None}, True),
    functions="not_ and_",
)
case("flag alone", lambda row: row.flag, (True, True), (False, False), (None, None), on="flag", functions="ref")
case(
    "flag == True",
    lambda row: row.flag == sa.true(),
    (True, True),
    (False, False),
    (None, None),
    on="flag",
    functions="eq",
)
case(
    "flag is true",
    lambda row: row.flag.is_(True),
    (True, True),
    (False, False),
    (None, False),
    on="flag",
    functions="is_",
)
case(
    "flag is not false",
    lambda row: row.flag.is_not(False),
    (True, True),
    (False, False),
    (None, True),
    on="flag",
    functions="is_not",
)
case("is null", lambda row: row.text.is_(None), ("", False), (None, True), ("a", False), functions="is_")
case("is not null", lambda row: row.text.is_not(None), ("", True), (None, False), ("a", True), functions="is_not")
case(
    "null test beside another",
    lambda row: (row.text.is_(None)) == (row.number.is_(None)),
    ({"text": None, "number": None}, True),
    ({"text": "a", "number": None}, False),
    functions="eq is_",
)
case(
    "case without else",
    lambda row: sa.case((row.number > 0, "plus"), (row.number < 0, "minus")),
    (1, "plus"), (-1, "minus"), (0, None), (None, None),
    on="number", functions="case",
)  # fmt: skip
case(
    "case with else",
    lambda row: sa.case((row.flag, row.text), else_=row.other),
    ({"flag": True, "text": "a", "other": "b"}, "a"),
    ({"flag": None, "text": "a", "other": "b"}, "b"),
    functions="case",
)
case(
    "case to a flag",
    lambda row: sa.case((row.number > 0, True), else_=False),
    (1, True),
    (0, False),
    (None, False),
    on="number",
    functions="case",
)
case(
    "coalesce",
    lambda row: sa.func.coalesce(row.text, row.other, "none"),
    ({"text": "a"}, "a"),
    ({"other": "b"}, "b"),
    ({"text": ""}, ""),
    ({"number": 1}, "none"),
)
case(
    "coalesce of a comparison",
    lambda row: sa.func.coalesce(row.number > 1, False),
    (None, False),
    (2, True),
    (1, False),
    on="number",
    functions="coalesce",
)
case(
    "coalesce of times",
    lambda row: sa.func.coalesce(row.time, dt.datetime(2020, 1, 2, 3, 4, 5, 6)),
    (None, dt.datetime(2020, 1, 2, 3, 4, 5, 6)),
    on="time",
    functions="coalesce",
)
case(
    "recode",
    lambda row: x.recode(row.text, {"a": "x", "it's": "50%", "\\": ""}),
    ("a", "x"),
    ("it's", "50%"),
    ("\\", ""),
    ("A", None),
    (None, None),
    functions="case",
)
case(
    "recode with default",
    lambda row: x.recode(row.text, {"a": 1, "b": 2}, default=0),
    ("a", 1),
    ("b", 2),
    ("B", 0),
    (None, None),
    functions="case",
)
case(
    "recode to flags",
    lambda row: x.recode(row.text, {"yes": True, "no": False}),
    ("yes", True),
    ("no", False),
    ("YES", None),
    functions="case",
)
case(
    "the decimal literal",
    lambda row: sa.case((row.flag, Decimal("10.05")), else_=Decimal("-0.5")),
    (True, Decimal("10.05")),
    (False, Decimal("-0.5")),
    on="flag",
    functions="literal",
)
case(
    "the text literals",
    lambda row: sa.case((row.text == "%s '\\' \"🙂\"\n:x", "\\'%%"), else_="no"),
    ("%s '\\' \"🙂\"\n:x", "\\'%%"),
    ("", "no"),
    functions="literal",
)
case(
    "nested functions",
    lambda row: x.concat(x.upper(x.substr(row.text, 1, 1)), x.lower(x.substr(row.text, 2, 99))),
    ("hELLO 𝒳", "Hello 𝒳"),
    ("", ""),
    (None, None),
    functions="concat upper lower substr",
)
case(
    "trim of concat",
    lambda row: x.trim(x.concat(row.text, " ", row.other)),
    ({"text": "a", "other": ""}, "a"),
    ({"text": "", "other": "b"}, "b"),
    ({"text": "a", "other": "b"}, "a b"),
    functions="trim concat",
)
case(
    "text of a remainder",
    lambda row: x.to_text(x.mod(row.number, 10) + 1),
    (19, "10"),
    (-1, "10"),
    on="number",
    functions="to_text mod",
)
