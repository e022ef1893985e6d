"""Lens expressions in the words of PostgreSQL and CockroachDB."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.base import PGDialect

from contraflow.dialects.compiler.base import Compiler, Expression, RefText, is_json, is_text
from contraflow.expressions import Ref
from contraflow.expressions.trees import NewUuid
from contraflow.syncs import SyncColumn

__all__ = ["CockroachDBCompiler", "PostgreSQLCompiler"]


class PostgreSQLCompiler(Compiler):
    """PostgreSQL's SQL. Text is compared by the collation "C"; times with a zone are taken in UTC."""

    core = PGDialect
    true = "TRUE"
    false = "FALSE"
    collate = ' COLLATE "C"'
    # Of a change of the row, only one of columns under a unique index has to wait for it (manual, Row-Level Locks).
    row_lock = " FOR KEY SHARE"
    share_lock = " FOR SHARE"

    def image(self, expression: Expression, target: SyncColumn, ref: RefText) -> str:
        text = super().image(expression, target, ref)
        if not isinstance(expression, Ref) and getattr(target.type, "timezone", False):
            return f"timezone('UTC', {text})"
        if isinstance(target.type, sa.types.Enum) and target.type.native_enum:
            same = isinstance(expression, Ref) and getattr(expression.type, "name", None) == target.type.name
            # A statement does not take text for an enumerated value, as an assignment in a trigger does.
            return text if same else f"CAST(CAST({text} AS text) AS {self.type_text(target.type)})"
        return text

    def carried(self, key: str) -> str:
        # A parameter that is text takes the type of what it is compared with (manual, Operator Type Resolution): so no
        # driver has to know the type both ways. psycopg reads neither 'infinity' nor a range as it takes it.
        return f"CAST({key} AS text)"

    def reference(self, text: str, type_: sa.types.TypeEngine[Any]) -> str:
        if is_text(type_):
            return f"(CAST({text} AS text){self.collate})"
        if isinstance(type_, sa.types.DateTime) and type_.timezone:
            return f"timezone('UTC', {text})"
        return text

    def decimal_literal(self, value: decimal.Decimal) -> str:
        return f"CAST({value:f} AS numeric)"

    def time_literal(self, value: dt.datetime) -> str:
        return f"CAST('{value.isoformat(' ')}' AS timestamp)"

    def text_literal(self, text: str) -> str:
        return f"(CAST({self.bare_text(text)} AS text){self.collate})"

    def bare_text(self, text: str) -> str:
        text = text.replace("'", "''")
        # E'' means the same whether standard_conforming_strings is on or off in the session that runs the trigger.
        return "E'" + text.replace("\\", "\\\\") + "'" if "\\" in text else f"'{text}'"

    def new_uuid(self, wish: NewUuid, type_: sa.types.TypeEngine[Any]) -> str:
        if isinstance(type_, sa.types.Uuid) and type_.native_uuid:
            return "gen_random_uuid()"
        text = "CAST(gen_random_uuid() AS text)"
        return text if wish.hyphens else f"replace({text}, '-', '')"

    def same(self, left: str, right: str, type_: sa.types.TypeEngine[Any]) -> str:
        if is_json(type_):
            left, right = (f"CAST(CAST({side} AS jsonb) AS text)" for side in (left, right))
        elif not _has_equality(type_):
            left, right = (f"CAST({side} AS text){self.collate}" for side in (left, right))
        return f"({left}) IS NOT DISTINCT FROM ({right})"

    def variable_type(self, column: SyncColumn) -> str:
        return self.type_text(column.type)

    def coerced(self, text: str, column: SyncColumn) -> str:
        # An explicit cast to varchar(n) cuts silently, an assignment raises: text is left to the assignment.
        if isinstance(column.type, sa.types.String) and not isinstance(column.type, sa.types.Enum):
            return text
        return f"CAST({text} AS {self.type_text(column.type)})"

    def big(self, number: str) -> str:
        return f"CAST({number} AS bigint)"

    def fn_before(self, text: str, separator: str) -> str:
        return f"split_part({text}, {separator}, 1)"

    def fn_after(self, text: str, separator: str) -> str:
        # Appending the separator makes one always be found; past the end, substr gives ''.
        return f"substr({text}, strpos({text} || {separator}, {separator}) + char_length({separator}))"

    def fn_trim(self, text: str) -> str:
        return f"btrim({text}, ' ')"

    def fn_lower(self, text: str) -> str:
        return f"lower({text}{self.collate})"

    def fn_upper(self, text: str) -> str:
        return f"upper({text}{self.collate})"

    def fn_length(self, text: str) -> str:
        return f"char_length({text})"

    def fn_contains(self, text: str, part: str) -> str:
        return f"strpos({text}, {part}) > 0"

    def fn_starts_with(self, text: str, prefix: str) -> str:
        return f"left({text}, char_length({prefix})) = {prefix}"

    def fn_to_integer(self, text: str) -> str:
        return f"CASE WHEN {text} ~ '^-?[0-9]{{1,18}}$' THEN CAST({text} AS bigint) END"

    def fn_to_text(self, number: str) -> str:
        return f"CAST({number} AS text){self.collate}"

    def fn_decimal_shift(self, number: str, digits: str) -> str:
        # Multiplication of numerics is exact; division rounds at about 16 digits.
        return f"CAST({number} AS numeric) * 0.{'0' * (int(digits) - 1)}1"

    def fn_to_minor_units(self, number: str, digits: str) -> str:
        return f"CAST(round(CAST({number} AS numeric) * 1{'0' * int(digits)}) AS bigint)"

    def fn_utcnow(self) -> str:
        return "timezone('UTC', now())"

    def fn_epoch_us(self, time: str) -> str:
        return f"CAST(extract(epoch FROM {time}) * 1000000 AS bigint)"

    def fn_from_epoch_us(self, number: str) -> str:
        # In two parts: an interval is multiplied as a double, which is exact up to 2**53 only.
        number, day = self.big(number), 86_400_000_000
        return (
            f"CAST('1970-01-01' AS timestamp) + ({number} / {day}) * interval '1 day'"
            f" + ({number} % {day}) * interval '1 microsecond'"
        )

    def fn_json_text(self, document: str, key: str) -> str:
        found = f"(CAST({document} AS jsonb) -> {key})"
        return (
            f"CASE WHEN jsonb_typeof({found}) = 'string' THEN (CAST({document} AS jsonb) ->> {key}){self.collate} END"
        )

    def fn_json_integer(self, document: str, key: str) -> str:
        spelled = f"(CAST({document} AS jsonb) ->> {key})"
        return (
            f"CASE WHEN jsonb_typeof(CAST({document} AS jsonb) -> {key}) = 'number'"
            f" AND {spelled} ~ '^-?[0-9]{{1,18}}$' THEN CAST({spelled} AS bigint) END"
        )

    def fn_json_put(self, document: str, key: str, value: str) -> str:
        given = f"CAST({document} AS jsonb)"
        base = f"(CASE WHEN jsonb_typeof({given}) = 'object' THEN {given} ELSE CAST('{{}}' AS jsonb) END)"
        return f"CASE WHEN {value} IS NULL THEN {base} - {key} ELSE {base} || jsonb_build_object({key}, {value}) END"


def _has_equality(type_: sa.types.TypeEngine[Any]) -> bool:
    return isinstance(
        type_,
        (
            sa.types.Integer,
            sa.types.Numeric,
            sa.types.Boolean,
            sa.types.DateTime,
            sa.types.Date,
            sa.types.Time,
            sa.types.Interval,
            sa.types.LargeBinary,
            sa.types.Uuid,
        ),
    )


class CockroachDBCompiler(PostgreSQLCompiler):
    """CockroachDB compares text byte for byte already; its lower() knows all of Unicode."""

    collate = ""

    def fn_lower(self, text: str) -> str:
        return f"translate({text}, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz')"

    def fn_upper(self, text: str) -> str:
        return f"translate({text}, 'abcdefghijklmnopqrstuvwxyz', 'ABCDEFGHIJKLMNOPQRSTUVWXYZ')"
