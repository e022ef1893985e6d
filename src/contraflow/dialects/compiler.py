"""Lens expressions to SQL: the same meaning on every server, each in that server's words.

The text is written here rather than by SQLAlchemy's compilers, because it ends up in trigger bodies: no
parameters, no doubled percent
signs, literals that do not depend on the session's mode, and every operand in parentheses. The language is closed
(:mod:`contraflow.expressions`), so this stays small.
"""

from __future__ import annotations

import datetime as dt
import decimal
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, cast

import sqlalchemy as sa
from sqlalchemy.dialects.mysql.base import MySQLDialect
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.dialects.sqlite.base import SQLiteDialect
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.sql import elements, functions, operators
from sqlalchemy.sql.expression import ColumnElement

from contraflow.dialects.lengths import longest
from contraflow.expressions import LensCall, Ref, children, inside, pairwise
from contraflow.steps import SyncColumn

__all__ = ["Compiler", "compiler_for"]

Expression = ColumnElement[Any]
RefText = Callable[[str], str]

_OPERATORS: dict[Any, str] = {
    operators.eq: "=",
    operators.ne: "<>",
    operators.lt: "<",
    operators.le: "<=",
    operators.gt: ">",
    operators.ge: ">=",
    operators.add: "+",
    operators.sub: "-",
    operators.mul: "*",
}


def is_text(type_: sa.types.TypeEngine[Any]) -> bool:
    """Whether values of the type are compared as text."""
    return isinstance(type_, sa.types.String)


def _is_decimal(type_: sa.types.TypeEngine[Any]) -> bool:
    return isinstance(type_, sa.types.Numeric) and not isinstance(type_, sa.types.Float)


def is_json(type_: sa.types.TypeEngine[Any]) -> bool:
    """Whether the type holds JSON documents."""
    return isinstance(type_, sa.types.JSON)


class Compiler(ABC):
    """Expressions, comparisons and literals of one kind of server."""

    core: ClassVar[type[DefaultDialect]]
    true: ClassVar[str] = "1"
    false: ClassVar[str] = "0"
    compares_rows: ClassVar[bool] = True
    """An index on (a, b) serves ``(a, b) > (1, 2)``."""

    def __init__(self) -> None:
        # Named parameters: the preparer would double percent signs in names for any other style.
        self.dialect = self.core(paramstyle="named")

    def quote(self, name: str) -> str:
        """``name`` as an identifier, always quoted."""
        return self.dialect.identifier_preparer.quote_identifier(name)

    def table(self, name: str, schema: str | None) -> str:
        """The table's name, qualified where a schema is given."""
        return f"{self.quote(schema)}.{self.quote(name)}" if schema else self.quote(name)

    def type_text(self, type_: sa.types.TypeEngine[Any]) -> str:
        """The type in DDL."""
        return self.dialect.type_compiler_instance.process(type_)

    def generated(self, column: sa.Column[Any]) -> str:
        """What follows the type of a column that the server computes when it is read; empty for others."""
        if column.computed is None:
            return ""
        text = column.computed.sqltext.compile(dialect=self.dialect, compile_kwargs={"literal_binds": True})
        return f" GENERATED ALWAYS AS ({text}) VIRTUAL"

    # -- whole expressions --------------------------------------------------------------------------------------------

    def image(self, expression: Expression, target: SyncColumn, ref: RefText) -> str:  # noqa: ARG002 - for subclasses
        """The expression as a value to be stored in ``target``."""
        if isinstance(expression, Ref):
            return ref(expression.name)
        return self.compile(expression, ref)

    def compile(self, node: Expression, ref: RefText) -> str:
        """The expression's text; ``ref`` gives the text of a column reference."""
        if isinstance(node, Ref):
            return self.reference(ref(node.name), node.type)
        if isinstance(node, elements.BindParameter):
            return self.literal(node.value)
        if isinstance(node, elements.Null):
            return "NULL"
        if isinstance(node, (elements.True_, elements.False_)):
            return self.true if isinstance(node, elements.True_) else self.false
        if isinstance(node, elements.Grouping):
            return self.compile(inside(node), ref)
        if isinstance(node, elements.Case):
            return self._case(node, ref)
        if isinstance(node, elements.ExpressionClauseList) and not isinstance(node, elements.BooleanClauseList):
            return self.compile(pairwise(node), ref)
        operands = [self.compile(child, ref) for child in children(node)]
        if isinstance(node, LensCall):
            method = getattr(self, f"fn_{node.function.name}")
            return f"({method(*operands)})"
        if isinstance(node, functions.coalesce):
            return f"COALESCE({', '.join(operands)})"
        if isinstance(node, elements.BooleanClauseList):
            word = " AND " if node.operator is operators.and_ else " OR "
            return f"({word.join(operands)})"
        if isinstance(node, elements.UnaryExpression):
            if node.operator is operators.neg:
                return f"(- {self.widened(operands[0], node.element.type)})"
            return operands[0] if node.operator is operators.is_true else f"(NOT {operands[0]})"
        return self._binary(cast("elements.BinaryExpression[Any]", node), operands)

    def _case(self, node: elements.Case[Any], ref: RefText) -> str:
        whens = " ".join(
            f"WHEN {self.compile(condition, ref)} THEN {self.compile(result, ref)}" for condition, result in node.whens
        )
        otherwise = f" ELSE {self.compile(node.else_, ref)}" if node.else_ is not None else ""
        return f"(CASE {whens}{otherwise} END)"

    def _binary(self, node: elements.BinaryExpression[Any], operands: list[str]) -> str:
        left, *rest = operands
        nodes = children(node)
        textual = any(is_text(child.type) for child in nodes)
        found = node.operator
        if found in (operators.in_op, operators.not_in_op):
            if not rest:
                return self.false if found is operators.in_op else self.true
            tests = " OR ".join(f"({self.comparison(left, '=', value, textual)})" for value in rest)
            return f"({tests})" if found is operators.in_op else f"(NOT ({tests}))"
        right = rest[0]
        if found in (operators.is_, operators.is_not):
            word = "IS" if found is operators.is_ else "IS NOT"
            name = {self.true: "TRUE", self.false: "FALSE"}.get(right, right)
            return f"({left} {word} {name})"
        if found in (operators.is_distinct_from, operators.is_not_distinct_from):
            type_ = next(
                (child.type for child in nodes if not isinstance(child.type, sa.types.NullType)),
                nodes[0].type,
            )
            same = self.same(left, right, type_)
            return f"({same})" if found is operators.is_not_distinct_from else f"(NOT ({same}))"
        if found is operators.concat_op or (found is operators.add and textual):
            return f"({self.fn_concat(left, right)})"
        if found in (operators.add, operators.sub, operators.mul):
            text = f"({self.widened(left, nodes[0].type)} {_OPERATORS[found]} {right})"
            return self.rounded(text) if any(map(_is_decimal, (child.type for child in nodes))) else text
        return f"({self.comparison(left, _OPERATORS[found], right, textual)})"

    def comparison(self, left: str, sign: str, right: str, textual: bool) -> str:  # noqa: ARG002 - for subclasses
        """``left sign right``, byte for byte if ``textual``.

        Operands of text are already in the byte-wise collation.
        """
        return f"{left} {sign} {right}"

    def rounded(self, decimal_: str) -> str:
        """The result of a sum, difference or product of decimals: exact where the server computes exactly."""
        return decimal_

    # -- what differs
    # ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def reference(self, text: str, type_: sa.types.TypeEngine[Any]) -> str:
        """A column inside an expression: text in a byte-wise collation, time in UTC without a zone."""

    @abstractmethod
    def literal(self, value: object) -> str:
        """A literal whose text means the same in every session."""

    @abstractmethod
    def same(self, left: str, right: str, type_: sa.types.TypeEngine[Any]) -> str:
        """Whether two values of the type are the same: byte for byte, and NULL is the same as NULL."""

    def unchanged(self, new: str, old: str, type_: sa.types.TypeEngine[Any]) -> str:
        """Whether two states of one column hold the same value, as :meth:`same` has it."""
        return self.same(new, old, type_)

    @abstractmethod
    def variable_type(self, column: SyncColumn) -> str:
        """The type of a local variable that coerces a value as storing it in ``column`` would."""

    def is_stored_whole(self, expression: Expression, column: SyncColumn) -> bool:  # noqa: ARG002 - for MySQL
        """Whether storing the expression's value in ``column`` cannot change it, so that no variable need coerce it."""
        return False

    @abstractmethod
    def coerced(self, text: str, column: SyncColumn) -> str:
        """The value as ``column`` would store it, inside a query (where there are no variables)."""

    @abstractmethod
    def fn_length(self, text: str) -> str:
        """The number of characters."""

    # -- functions that most servers spell alike
    # --------------------------------------------------------------------------

    def fn_concat(self, *parts: str) -> str:
        return " || ".join(parts)

    def fn_trim(self, text: str) -> str:
        return f"trim({text}, ' ')"

    def fn_ltrim(self, text: str) -> str:
        return f"ltrim({text}, ' ')"

    def fn_rtrim(self, text: str) -> str:
        return f"rtrim({text}, ' ')"

    def fn_replace(self, text: str, old: str, new: str) -> str:
        return f"replace({text}, {old}, {new})"

    def fn_substr(self, text: str, start: str, count: str) -> str:
        return f"substr({text}, {start}, {count})"

    def fn_mod(self, number: str, divisor: str) -> str:
        number = self.big(number)
        return f"(({number} % {divisor}) + {divisor}) % {divisor}"

    def fn_div(self, number: str, divisor: str) -> str:
        # All servers truncate towards zero, and the remainder has the number's sign. Nothing on the way overflows.
        number = self.big(number)
        return f"({number} / {divisor}) - (CASE WHEN ({number} % {divisor}) < 0 THEN 1 ELSE 0 END)"

    def big(self, number: str) -> str:
        """The integer with 64 bits, so that arithmetic on the way does not overflow."""
        return number

    def widened(self, operand: str, type_: sa.types.TypeEngine[Any]) -> str:
        """The left operand of arithmetic: with 64 bits if it is an integer."""
        return self.big(operand) if isinstance(type_, sa.types.Integer) else operand


class PostgreSQLCompiler(Compiler):
    core = PGDialect
    true = "TRUE"
    false = "FALSE"
    collate = ' COLLATE "C"'

    def image(self, expression: Expression, target: SyncColumn, ref: RefText) -> str:
        text = super().image(expression, target, ref)
        if not isinstance(expression, Ref) and getattr(target.type, "timezone", False):
            return f"timezone('UTC', {text})"
        if isinstance(target.type, sa.types.Enum) and target.type.native_enum:
            same = isinstance(expression, Ref) and getattr(expression.type, "name", None) == target.type.name
            # A statement does not take text for an enumerated value, as an assignment in a trigger does.
            return text if same else f"CAST(CAST({text} AS text) AS {self.type_text(target.type)})"
        return text

    def reference(self, text: str, type_: sa.types.TypeEngine[Any]) -> str:
        if is_text(type_):
            return f"(CAST({text} AS text){self.collate})"
        if isinstance(type_, sa.types.DateTime) and type_.timezone:
            return f"timezone('UTC', {text})"
        return text

    def literal(self, value: object) -> str:
        if value is None:
            return "NULL"
        if isinstance(value, bool):
            return self.true if value else self.false
        if isinstance(value, int):
            return str(value) if value >= 0 else f"({value})"
        if isinstance(value, decimal.Decimal):
            return f"CAST({value:f} AS numeric)"
        if isinstance(value, dt.datetime):
            return f"CAST('{value.isoformat(' ')}' AS timestamp)"
        text = str(value).replace("'", "''")
        # E'' means the same whether standard_conforming_strings is on or off in the session that runs the trigger.
        quoted = "E'" + text.replace("\\", "\\\\") + "'" if "\\" in text else f"'{text}'"
        return f"(CAST({quoted} AS text){self.collate})"

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


class MySQLCompiler(Compiler):
    core = MySQLDialect
    compares_rows = False
    collation = "utf8mb4_0900_bin"
    """Byte-wise and without padding: 'a' and 'a ' differ."""

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

    def literal(self, value: object) -> str:
        if value is None:
            return "NULL"
        if isinstance(value, bool):
            return self.true if value else self.false
        if isinstance(value, int):
            return str(value) if value >= 0 else f"({value})"
        if isinstance(value, decimal.Decimal):
            return f"({value:f})"
        if isinstance(value, dt.datetime):
            return f"TIMESTAMP'{value.isoformat(' ')}'"
        text = str(value)
        if "\\" in text:  # as bytes: the text would depend on NO_BACKSLASH_ESCAPES
            return f"(_utf8mb4 x'{text.encode().hex()}' COLLATE {self.collation})"
        quoted = text.replace("'", "''")
        return f"(_utf8mb4'{quoted}' COLLATE {self.collation})"

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
        path = _path(key)
        return f"CASE WHEN {value} IS NULL THEN JSON_REMOVE({base}, {path}) ELSE JSON_SET({base}, {path}, {value}) END"


class MariaDBCompiler(MySQLCompiler):
    collation = "utf8mb4_nopad_bin"

    def json_value(self, text: str) -> str:
        # JSON is text here; only JSON_NORMALIZE (10.7) gives equal documents equal bytes.
        return self.bytewise(f"COALESCE(JSON_NORMALIZE({text}), {text})")


class SQLiteCompiler(Compiler):
    core = SQLiteDialect

    def reference(self, text: str, type_: sa.types.TypeEngine[Any]) -> str:
        return f"({text} COLLATE BINARY)" if is_text(type_) else text

    def literal(self, value: object) -> str:
        if value is None:
            return "NULL"
        if isinstance(value, bool):
            return self.true if value else self.false
        if isinstance(value, int):
            return str(value) if value >= 0 else f"({value})"
        if isinstance(value, decimal.Decimal):
            return f"({value:f})"
        if isinstance(value, dt.datetime):
            return f"'{value:%Y-%m-%d %H:%M:%S.%f}'"  # as SQLAlchemy stores it
        quoted = str(value).replace("'", "''")
        return f"'{quoted}'"

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
        found = f"json_type({document}, {_path(key)})"
        return f"CASE WHEN json_valid({document}) THEN CASE WHEN {found} = '{kind}' THEN {value} END END"

    def fn_json_text(self, document: str, key: str) -> str:
        return self._json_typed(document, key, "text", f"json_extract({document}, {_path(key)})")

    def fn_json_integer(self, document: str, key: str) -> str:
        value = f"json_extract({document}, {_path(key)})"
        fits = f"{value} BETWEEN -999999999999999999 AND 999999999999999999"
        return self._json_typed(document, key, "integer", f"CASE WHEN {fits} THEN {value} END")

    def fn_json_put(self, document: str, key: str, value: str) -> str:
        base = (
            f"CASE WHEN json_valid({document}) THEN CASE WHEN json_type({document}) = 'object'"
            f" THEN {document} ELSE '{{}}' END ELSE '{{}}' END"
        )
        path = _path(key)
        return f"CASE WHEN {value} IS NULL THEN json_remove({base}, {path}) ELSE json_set({base}, {path}, {value}) END"


def _replace_letters(text: str, letters: str, others: str) -> str:
    for letter, other in zip(letters, others, strict=True):
        text = f"REPLACE({text}, '{letter}', '{other}')"
    return text


def _found(document: str, key: str) -> str:
    return f"JSON_EXTRACT({document}, {_path(key)})"


def _path(key: str) -> str:
    """The JSON path of a key given as a compiled literal; the language admits plain names only."""
    name = key.split("'")[1]
    return f"'$.{name}'"


_COMPILERS: dict[str, type[Compiler]] = {
    "postgresql": PostgreSQLCompiler,
    "cockroachdb": CockroachDBCompiler,
    "mysql": MySQLCompiler,
    "mariadb": MariaDBCompiler,
    "sqlite": SQLiteCompiler,
}


def compiler_for(product: str, *, utf8mb4: bool = False) -> Compiler:
    """The compiler for a server product (``Profile.product``). Raises ``KeyError`` for an unknown one.

    ``utf8mb4`` tells those of MySQL and MariaDB that every column of text is in that character set.
    """
    compiler = _COMPILERS[product]
    return compiler(utf8mb4=True) if utf8mb4 and issubclass(compiler, MySQLCompiler) else compiler()
