"""Lens expressions in the words of MySQL and MariaDB."""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.mysql.base import MySQLDialect

from contraflow.dialects.compiler.base import Compiler, Expression, is_json, is_text, json_path
from contraflow.dialects.lengths import longest
from contraflow.expressions.trees import NewUuid
from contraflow.syncs import SyncColumn

__all__ = ["MariaDBCompiler", "MySQLCompiler"]


class MySQLCompiler(Compiler):
    """MySQL's SQL. Text is compared in its own character set or in utf8mb4, always byte by byte."""

    core = MySQLDialect
    compares_rows = False
    collation = "utf8mb4_0900_bin"
    """Byte-wise and without padding: 'a' and 'a ' differ."""
    # MariaDB knows no FOR SHARE.
    row_lock = share_lock = " LOCK IN SHARE MODE"

    def __init__(self, *, utf8mb4: bool = False) -> None:
        """``utf8mb4``: every column of text is known to be in this character set, so that none is converted to it."""
        super().__init__()
        self.utf8mb4 = utf8mb4

    def bytewise(self, text: str) -> str:
        return f"(CONVERT({text} USING utf8mb4) COLLATE {self.collation})"

    def reference(self, text: str, type_: sa.types.TypeEngine[Any]) -> str:
        if is_text(type_):
            return f"({text} COLLATE {self.collation})" if self.utf8mb4 else self.bytewise(text)
        # A difference of unsigned integers fails where it is negative.
        return f"CAST({text} AS SIGNED)" if getattr(type_, "unsigned", False) else text

    def time_literal(self, value: dt.datetime) -> str:
        return f"TIMESTAMP'{value.isoformat(' ')}'"

    def text_literal(self, text: str) -> str:
        return f"({self.bare_text(text)} COLLATE {self.collation})"

    def bare_text(self, text: str) -> str:
        if "\\" in text:  # as bytes: the text would depend on NO_BACKSLASH_ESCAPES
            return f"_utf8mb4 x'{text.encode().hex()}'"
        quoted = text.replace("'", "''")
        return f"_utf8mb4'{quoted}'"

    def new_uuid(self, wish: NewUuid, type_: sa.types.TypeEngine[Any]) -> str:  # noqa: ARG002 - for PostgreSQL
        # Not REPLACE(UUID(), ...): of many rows in one statement, some versions compute it once. Version 4: its digit,
        # and the first one of the variant, stand between random ones (RFC 9562).
        digits = "HEX(RANDOM_BYTES(6)), '4', SUBSTR(HEX(RANDOM_BYTES(2)), 2), '8', SUBSTR(HEX(RANDOM_BYTES(8)), 2)"
        return "UUID()" if wish.hyphens else f"LOWER(CONCAT({digits}))"

    def alike(self, left: str, right: str) -> str:
        return f"({left} <=> {right})"

    def same(self, left: str, right: str, type_: sa.types.TypeEngine[Any]) -> str:
        if is_json(type_):
            left, right = self.json_value(left), self.json_value(right)
        elif is_text(type_):
            left, right = self.bytewise(left), self.bytewise(right)
        elif isinstance(type_, sa.types.LargeBinary):
            left, right = f"CAST({left} AS BINARY)", f"CAST({right} AS BINARY)"
        return f"({left}) <=> ({right})"

    def unchanged(self, new: str, old: str, type_: sa.types.TypeEngine[Any]) -> str:
        if not is_text(type_) or isinstance(type_, sa.types.Enum):
            return self.same(new, old, type_)
        if self.utf8mb4:
            return f"({new}) COLLATE {self.collation} <=> ({old})"
        # One column has one character set: its bytes need no conversion, and one binary side makes the other one so.
        return f"({new}) <=> CAST({old} AS BINARY)"

    def json_value(self, text: str) -> str:
        """A JSON document in a form that is equal for equal documents."""
        return self.bytewise(f"CAST({text} AS JSON)")

    def variable_type(self, column: SyncColumn) -> str:
        type_ = column.type
        if isinstance(type_, sa.types.Enum):
            return f"VARCHAR(255) CHARACTER SET utf8mb4 COLLATE {self.collation}"
        if is_text(type_):
            length = getattr(type_, "length", None)
            name = f"VARCHAR({length})" if length and length <= 16_000 else "LONGTEXT"
            return f"{name} CHARACTER SET utf8mb4 COLLATE {self.collation}"
        return self.type_text(type_)

    def is_stored_whole(self, expression: Expression, column: SyncColumn) -> bool:
        # A trigger that declares variables makes a table of them each time it is fired, needed or not: an UPDATE of
        # many rows took MariaDB 10.11 a fifth longer.
        if not self.utf8mb4 or not is_text(column.type) or isinstance(column.type, (sa.types.Enum, sa.types.CHAR)):
            return False
        length, room = longest(expression), getattr(column.type, "length", None)
        return length is not None and room is not None and length <= room

    def coerced(self, text: str, column: SyncColumn) -> str:
        type_ = column.type
        if isinstance(type_, sa.types.DateTime):
            return f"CAST({text} AS DATETIME({getattr(type_, 'fsp', None) or 0}))"
        if isinstance(type_, sa.types.Numeric) and not isinstance(type_, sa.types.Float) and type_.precision:
            return f"CAST({text} AS DECIMAL({type_.precision}, {type_.scale or 0}))"
        return text

    def fn_concat(self, *parts: str) -> str:
        return f"CONCAT({', '.join(parts)})"

    def fn_before(self, text: str, separator: str) -> str:
        return f"SUBSTRING_INDEX({text}, {separator}, 1)"

    def fn_after(self, text: str, separator: str) -> str:
        # Without the separator, what is before it is everything; past the end, SUBSTRING gives ''.
        before = f"CHAR_LENGTH(SUBSTRING_INDEX({text}, {separator}, 1))"
        return f"SUBSTRING({text}, {before} + CHAR_LENGTH({separator}) + 1)"

    def fn_trim(self, text: str) -> str:
        return f"TRIM(BOTH ' ' FROM {text})"

    def fn_ltrim(self, text: str) -> str:
        return f"TRIM(LEADING ' ' FROM {text})"

    def fn_rtrim(self, text: str) -> str:
        return f"TRIM(TRAILING ' ' FROM {text})"

    def fn_substr(self, text: str, start: str, count: str) -> str:
        return f"SUBSTRING({text}, {start}, {count})"

    # LOWER and UPPER know all of Unicode; REPLACE compares letters exactly.
    def fn_lower(self, text: str) -> str:
        return _replace_letters(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")

    def fn_upper(self, text: str) -> str:
        return _replace_letters(text, "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")

    def fn_length(self, text: str) -> str:
        return f"CHAR_LENGTH({text})"

    def fn_contains(self, text: str, part: str) -> str:
        return f"LOCATE({part}, {text}) > 0"

    def fn_starts_with(self, text: str, prefix: str) -> str:
        return f"LEFT({text}, CHAR_LENGTH({prefix})) = {prefix}"

    def fn_to_integer(self, text: str) -> str:
        # \z, since $ also matches before a newline at the end.
        pattern = self.literal("^-?[0-9]{1,18}\\z")
        return f"CASE WHEN {text} REGEXP {pattern} THEN CAST({text} AS SIGNED) END"

    def fn_to_text(self, number: str) -> str:
        return self.bytewise(f"CAST({number} AS CHAR)")

    def fn_div(self, number: str, divisor: str) -> str:
        return f"({number} DIV {divisor}) - (CASE WHEN ({number} % {divisor}) < 0 THEN 1 ELSE 0 END)"

    def fn_decimal_shift(self, number: str, digits: str) -> str:
        return f"CAST({number} AS DECIMAL(30, 0)) * 0.{'0' * (int(digits) - 1)}1"

    def fn_to_minor_units(self, number: str, digits: str) -> str:
        return f"CAST(ROUND(CAST({number} AS DECIMAL(42, 12)) * 1{'0' * int(digits)}) AS SIGNED)"

    def fn_utcnow(self) -> str:
        return "UTC_TIMESTAMP(6)"

    def fn_epoch_us(self, time: str) -> str:
        return f"TIMESTAMPDIFF(MICROSECOND, TIMESTAMP'1970-01-01 00:00:00', {time})"

    def fn_from_epoch_us(self, number: str) -> str:
        return f"TIMESTAMPADD(MICROSECOND, {number}, TIMESTAMP'1970-01-01 00:00:00.000000')"

    def _json_typed(self, document: str, key: str, kinds: str, value: str) -> str:
        found = _found(document, key)
        return f"CASE WHEN JSON_VALID({document}) THEN CASE WHEN JSON_TYPE({found}) IN ({kinds}) THEN {value} END END"

    def fn_json_text(self, document: str, key: str) -> str:
        value = self.bytewise(f"JSON_UNQUOTE({_found(document, key)})")
        return self._json_typed(document, key, "'STRING'", value)

    def fn_json_integer(self, document: str, key: str) -> str:
        # MySQL calls long integers unsigned. Digits first: a cast of more of them than fit is an error in strict mode.
        digits = self.bytewise(f"JSON_UNQUOTE({_found(document, key)})")
        value = f"({self.fn_to_integer(digits)})"
        return self._json_typed(document, key, "'INTEGER', 'UNSIGNED INTEGER'", value)

    def fn_json_put(self, document: str, key: str, value: str) -> str:
        base = (
            f"CASE WHEN JSON_VALID({document}) THEN CASE WHEN JSON_TYPE({document}) = 'OBJECT'"
            f" THEN {document} ELSE JSON_OBJECT() END ELSE JSON_OBJECT() END"
        )
        path = json_path(key)
        return f"CASE WHEN {value} IS NULL THEN JSON_REMOVE({base}, {path}) ELSE JSON_SET({base}, {path}, {value}) END"


class MariaDBCompiler(MySQLCompiler):
    """MariaDB names its collations otherwise, and keeps JSON as text."""

    collation = "utf8mb4_nopad_bin"

    def __init__(self, *, utf8mb4: bool = False) -> None:
        super().__init__(utf8mb4=utf8mb4)
        # From 10.7 on; SQLAlchemy's own dialect takes each MariaDB for such, and sends what a CHAR(32) cannot hold.
        self.dialect.supports_native_uuid = True

    def new_uuid(self, wish: NewUuid, type_: sa.types.TypeEngine[Any]) -> str:  # noqa: ARG002 - for PostgreSQL
        # RANDOM_BYTES() came with 10.10, SYS_GUID() with 10.6.1; where there is a type UUID, it takes both forms.
        return "UUID()" if wish.hyphens else "LOWER(SYS_GUID())"

    def json_value(self, text: str) -> str:
        # JSON is text here; only JSON_NORMALIZE (10.7) gives equal documents equal bytes.
        return self.bytewise(f"COALESCE(JSON_NORMALIZE({text}), {text})")


def _replace_letters(text: str, letters: str, others: str) -> str:
    for letter, other in zip(letters, others, strict=True):
        text = f"REPLACE({text}, '{letter}', '{other}')"
    return text


def _found(document: str, key: str) -> str:
    return f"JSON_EXTRACT({document}, {json_path(key)})"
