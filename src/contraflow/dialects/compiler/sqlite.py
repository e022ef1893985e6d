"""Lens expressions in the words of SQLite."""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite.base import SQLiteDialect

from contraflow.dialects.compiler.base import Compiler, is_json, is_text, json_path
from contraflow.expressions.trees import NewUuid
from contraflow.syncs import SyncColumn

__all__ = ["SQLiteCompiler"]


class SQLiteCompiler(Compiler):
    """SQLite's SQL. Text is compared by the collation BINARY; decimals are floats."""

    core = SQLiteDialect

    def reference(self, text: str, type_: sa.types.TypeEngine[Any]) -> str:
        return f"({text} COLLATE BINARY)" if is_text(type_) else text

    def time_literal(self, value: dt.datetime) -> str:
        return f"'{value:%Y-%m-%d %H:%M:%S.%f}'"  # as SQLAlchemy stores it

    def text_literal(self, text: str) -> str:
        return self.bare_text(text)

    def new_uuid(self, wish: NewUuid, type_: sa.types.TypeEngine[Any]) -> str:  # noqa: ARG002 - for PostgreSQL
        # Version 4: its digit, and the first one of the variant, stand between random ones (RFC 9562).
        four, eight = (f"'{digit}' || substr(hex(randomblob(2)), 2)" for digit in (4, 8))
        parts = ["hex(randomblob(4))", "hex(randomblob(2))", four, eight, "hex(randomblob(6))"]
        return f"lower({' || '.join(_between(parts) if wish.hyphens else parts)})"

    def alike(self, left: str, right: str) -> str:
        return f"({left} IS {right})"

    def comparison(self, left: str, sign: str, right: str, textual: bool) -> str:
        return f"{left} COLLATE BINARY {sign} {right}" if textual else f"{left} {sign} {right}"

    def same(self, left: str, right: str, type_: sa.types.TypeEngine[Any]) -> str:
        # The unary plus takes the right side's affinity away, so that it is converted as storing it in the
        # left column would.
        if is_json(type_):
            left, right = self.json_value(left), self.json_value(right)
        return f"({left}) COLLATE BINARY IS +({right})"

    def json_value(self, text: str) -> str:
        """A JSON document without insignificant spaces; what is no JSON stays as it is."""
        return f"CASE WHEN json_valid({text}) THEN json({text}) ELSE {text} END"

    def variable_type(self, column: SyncColumn) -> str:
        return self.type_text(column.type)

    def coerced(self, text: str, column: SyncColumn) -> str:  # noqa: ARG002 - see same()
        return text

    def fn_before(self, text: str, separator: str) -> str:
        place = f"instr({text}, {separator})"
        return f"CASE WHEN {place} > 0 THEN substr({text}, 1, {place} - 1) ELSE {text} END"

    def fn_after(self, text: str, separator: str) -> str:
        return f"substr({text}, instr({text} || {separator}, {separator}) + length({separator}))"

    def fn_lower(self, text: str) -> str:
        return f"lower({text})"

    def fn_upper(self, text: str) -> str:
        return f"upper({text})"

    def fn_length(self, text: str) -> str:
        return f"length({text})"

    def fn_contains(self, text: str, part: str) -> str:
        return f"instr({text}, {part}) > 0"

    def fn_starts_with(self, text: str, prefix: str) -> str:
        return f"substr({text}, 1, length({prefix})) COLLATE BINARY = {prefix}"

    def fn_to_integer(self, text: str) -> str:
        digits = f"(CASE WHEN substr({text}, 1, 1) = '-' THEN substr({text}, 2) ELSE {text} END)"
        return (
            f"CASE WHEN length({digits}) BETWEEN 1 AND 18 AND {digits} NOT GLOB '*[^0-9]*'"
            f" THEN CAST({text} AS INTEGER) END"
        )

    def fn_to_text(self, number: str) -> str:
        return f"CAST({number} AS TEXT)"

    def rounded(self, decimal_: str) -> str:
        # Decimals are 8-byte floats here, and text has 15 significant digits of one (https://sqlite.org/floatingpoint.html,
        # lang_expr.html#castexpr): 0.1 + 0.2 becomes the float that stands for 0.3.
        return f"CAST(CAST({decimal_} AS TEXT) AS REAL)"

    def fn_decimal_shift(self, number: str, digits: str) -> str:
        return f"{number} / 1{'0' * int(digits)}.0"

    def fn_to_minor_units(self, number: str, digits: str) -> str:
        # Decimals are 8-byte floats here: 15 significant digits first, then halves away from zero.
        product = f"CAST(printf('%.15g', {number} * 1{'0' * int(digits)}.0) AS REAL)"
        return f"CASE WHEN {number} IS NOT NULL THEN CAST(round({product}) AS INTEGER) END"

    def fn_utcnow(self) -> str:
        return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"

    def fn_epoch_us(self, time: str) -> str:
        fraction = f"CAST(substr(substr({time}, 21) || '000000', 1, 6) AS INTEGER)"
        return f"CAST(strftime('%s', substr({time}, 1, 19)) AS INTEGER) * 1000000 + {fraction}"

    def fn_from_epoch_us(self, number: str) -> str:
        seconds, fraction = self.fn_div(number, "1000000"), self.fn_mod(number, "1000000")
        return f"strftime('%Y-%m-%d %H:%M:%S', {seconds}, 'unixepoch') || '.' || printf('%06d', {fraction})"

    def _json_typed(self, document: str, key: str, kind: str, value: str) -> str:
        found = f"json_type({document}, {json_path(key)})"
        return f"CASE WHEN json_valid({document}) THEN CASE WHEN {found} = '{kind}' THEN {value} END END"

    def fn_json_text(self, document: str, key: str) -> str:
        return self._json_typed(document, key, "text", f"json_extract({document}, {json_path(key)})")

    def fn_json_integer(self, document: str, key: str) -> str:
        value = f"json_extract({document}, {json_path(key)})"
        fits = f"{value} BETWEEN -999999999999999999 AND 999999999999999999"
        return self._json_typed(document, key, "integer", f"CASE WHEN {fits} THEN {value} END")

    def fn_json_put(self, document: str, key: str, value: str) -> str:
        base = (
            f"CASE WHEN json_valid({document}) THEN CASE WHEN json_type({document}) = 'object'"
            f" THEN {document} ELSE '{{}}' END ELSE '{{}}' END"
        )
        path = json_path(key)
        return f"CASE WHEN {value} IS NULL THEN json_remove({base}, {path}) ELSE json_set({base}, {path}, {value}) END"


def _between(parts: list[str]) -> list[str]:
    """The parts with hyphens between them."""
    return [text for part in parts for text in ("'-'", part)][1:]
