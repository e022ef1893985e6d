"""What the SQL of lens expressions has in common on all servers.

The text is written here rather than by SQLAlchemy's compilers, because it ends up in trigger bodies: no
parameters, no doubled percent signs, literals that do not depend on the session's mode, and every operand in
parentheses. The language is closed (:mod:`contraflow.expressions`), so this stays small.
"""

from __future__ import annotations

import copy
import datetime as dt
import decimal
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

import sqlalchemy as sa
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.sql import elements, functions, operators
from sqlalchemy.sql.expression import ColumnElement

from contraflow.expressions import LensCall, Ref, children, inside, pairwise
from contraflow.expressions.trees import NEW_UUID, Lookup, Match, NewUuid
from contraflow.syncs import SyncColumn

__all__ = ["Compiler", "Expression", "RefText", "is_json", "is_text", "json_path", "plain_literal"]

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


def plain_literal(text: str) -> str:
    """``text`` as a literal of standard SQL, in which a backslash is a character like any other.

    So it is on SQLite, on PostgreSQL with ``standard_conforming_strings`` on, and, without backslashes, everywhere.
    """
    return "'" + text.replace("'", "''") + "'"


class Compiler(ABC):
    """Expressions, comparisons and literals of one kind of server."""

    core: ClassVar[type[DefaultDialect]]
    true: ClassVar[str] = "1"
    false: ClassVar[str] = "0"
    compares_rows: ClassVar[bool] = True
    """An index on (a, b) serves ``(a, b) > (1, 2)``."""
    row_lock: str = ""
    """Ends a query whose row must neither go nor change its key before the transaction ends."""
    share_lock: ClassVar[str] = ""
    """Ends a query whose row must not change at all before the transaction ends, and which waits for who changes it."""

    def __init__(self) -> None:
        self.looks_closely = False
        # Named parameters: the preparer would double percent signs in names for any other style.
        self.dialect = self.core(paramstyle="named")

    def quote(self, name: str) -> str:
        """``name`` as an identifier, always quoted."""
        return self.dialect.identifier_preparer.quote_identifier(name)

    def table(self, name: str, schema: str | None) -> str:
        """The table's name, qualified where a schema is given."""
        return f"{self.quote(schema)}.{self.quote(name)}" if schema else self.quote(name)

    def carried(self, key: str) -> str:
        """A key's column in the form in which its value is read, kept, and compared with the column again later."""
        return key

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
        if isinstance(node, Lookup):
            return self._lookup(node, ref)
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
            return self._call(node, operands)
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

    def _call(self, node: LensCall, operands: Sequence[str]) -> str:
        if node.function is NEW_UUID:
            # As texts, SQLAlchemy's own UUIDs are 32 hexadecimal digits; a column of text has hyphens if they fit.
            length = getattr(node.type, "length", None)
            hyphens = not isinstance(node.type, sa.types.Uuid) and (length is None or length >= 36)
            return self.new_uuid(NewUuid(hyphens=hyphens), node.type)
        method = getattr(self, f"fn_{node.function.name}")
        return f"({method(*operands)})"

    # -- other tables -------------------------------------------------------------------------------------------------

    def in_triggers(self) -> Compiler:
        """A compiler for triggers: references there are qualified, and what is looked up must stay as it is found."""
        closely = copy.copy(self)
        closely.looks_closely = True
        return closely

    def waiting(self) -> Compiler:
        """A compiler for triggers that wait for whoever is changing the row that is looked up."""
        patient = self.in_triggers()
        patient.row_lock = self.share_lock
        return patient

    def _lookup(self, node: Lookup, ref: RefText) -> str:
        if self.looks_closely:
            source = self.table(node.table, node.schema)
            value, names = self.quote(node.column), [self.quote(match.name) for match in node.matches]
        else:
            # Under other names: a reference that is not qualified means the row at hand.
            value, names = "cf_value", [f"cf_{place}" for place in range(len(node.matches))]
            picked = [f"{self.quote(match.name)} AS {name}" for match, name in zip(node.matches, names, strict=True)]
            listed = ", ".join([f"{self.quote(node.column)} AS cf_value", *picked])
            source = f"(SELECT {listed} FROM {self.table(node.table, node.schema)})"
        where = self._matching(node, names, ref)
        # NULLs may be found in several rows.
        first = f" ORDER BY cf_row.{value} LIMIT 1" if any(match.nulls for match in node.matches) else ""
        lock = self.row_lock if self.looks_closely else ""
        return f"(SELECT cf_row.{value} FROM {source} cf_row WHERE {where}{first}{lock})"

    def _matching(self, node: Lookup, names: Sequence[str], ref: RefText) -> str:
        parts = []
        for match, name in zip(node.matches, names, strict=True):
            value, column = self.matched(match, ref), f"cf_row.{name}"
            parts.append(self.alike(column, value) if match.nulls else f"{column} = {value}")
        if all(match.nulls for match in node.matches):
            parts.append(self.is_given(node, ref))
        return " AND ".join(parts)

    def is_given(self, node: Lookup, ref: RefText) -> str:
        """Whether the row at hand says which row it looks for."""
        refs = [match for match in node.matches if isinstance(match.value, Ref)]
        word = " OR " if any(match.nulls for match in refs) else " AND "
        return f"({word.join(f'{self.matched(match, ref)} IS NOT NULL' for match in refs) or self.true})"

    def matched(self, match: Match, ref: RefText) -> str:
        """The value of a match as it is: the other table's column says what is alike, so that its index serves."""
        if isinstance(match.value, Ref):
            return ref(match.value.name)
        value = cast("elements.BindParameter[Any]", match.value).value
        return self.bare_text(value) if isinstance(value, str) else self.literal(value)

    def bare_text(self, text: str) -> str:
        """A literal of text without a collation of its own."""
        return plain_literal(text)

    def alike(self, left: str, right: str) -> str:
        """Whether two values are alike to an index, or both NULL."""
        return f"({left} = {right} OR ({left} IS NULL AND {right} IS NULL))"

    def is_there(self, node: Lookup, ref: RefText, *, stays: bool) -> str:
        """Whether the row that is looked up is there, as a condition in a trigger; ``stays``: and will be."""
        names = [self.quote(match.name) for match in node.matches]
        where = self._matching(node, names, ref)
        lock = self.row_lock if stays else ""
        return f"EXISTS (SELECT 1 FROM {self.table(node.table, node.schema)} cf_row WHERE {where}{lock})"

    def making(self, node: Lookup, ref: RefText) -> tuple[str, str]:
        """The columns and the values of the row that a lookup makes, if it is not there."""
        parts = {self.quote(match.name): self.matched(match, ref) for match in node.matches}
        for made in node.made or ():
            if isinstance(made.value, NewUuid):
                value = self.new_uuid(made.value, made.type)
            else:
                value = self.image(made.value, SyncColumn(name=made.name, type=made.type, nullable=True), ref)
            parts[self.quote(made.name)] = value
        return ", ".join(parts), ", ".join(parts.values())

    @abstractmethod
    def new_uuid(self, wish: NewUuid, type_: sa.types.TypeEngine[Any]) -> str:
        """A new UUID each time that it is computed, for a column of the type."""

    # -- cases --------------------------------------------------------------------------------------------------------

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

    def literal(self, value: object) -> str:
        """A literal whose text means the same in every session."""
        if value is None:
            return "NULL"
        if isinstance(value, bool):
            return self.true if value else self.false
        if isinstance(value, int):
            return str(value) if value >= 0 else f"({value})"
        if isinstance(value, decimal.Decimal):
            return self.decimal_literal(value)
        if isinstance(value, dt.datetime):
            return self.time_literal(value)
        return self.text_literal(str(value))

    def decimal_literal(self, value: decimal.Decimal) -> str:
        """A decimal."""
        return f"({value:f})"

    @abstractmethod
    def time_literal(self, value: dt.datetime) -> str:
        """A date and time without a zone."""

    @abstractmethod
    def text_literal(self, text: str) -> str:
        """Text in a byte-wise collation."""

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


def json_path(key: str) -> str:
    """The JSON path of a key given as a compiled literal; the language admits plain names only."""
    name = key.split("'")[1]
    return f"'$.{name}'"
