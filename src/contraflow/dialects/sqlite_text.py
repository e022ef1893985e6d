"""Editing the text of a CREATE TABLE as SQLite keeps it, so that taking the edit back gives the same bytes.

SQLite before 3.54 cannot change a column's NOT NULL, and 3.54 cannot give back the text it took away (a named
constraint, a conflict clause, spelling). So the constraint is put into comments where it stands, one for each of
its words.
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from contraflow.constraints import Check, Constraint

__all__ = [
    "add_column",
    "add_constraint",
    "collations",
    "constraint_names",
    "counts",
    "drop_constraint",
    "drop_primary",
    "drop_unique",
    "forget",
    "former",
    "index_name",
    "indexed",
    "named",
    "options",
    "placed",
    "relax",
    "restore",
    "retype",
    "set_default",
    "set_final",
    "type_of",
    "with_former",
    "without_former",
]

_TOKEN = re.compile(
    r"""
      (?P<space>\s+|--[^\n]*\n?|/\*.*?(?:\*/|$))
    | (?P<name>"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\])
    | (?P<text>'(?:[^']|'')*')
    | (?P<word>[^\W\d][\w$]*)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_HIDDEN = re.compile(r"/\*contraflow:(.*?)\*/", re.DOTALL)
_ACTIONS = ("CASCADE", "RESTRICT", "SET NULL", "SET DEFAULT", "NO ACTION")
_SIMPLE_DEFAULT = re.compile(
    r"[+-]?\d+(\.\d+)?|'(?:[^']|'')*'|NULL|TRUE|FALSE|CURRENT_(TIME|DATE|TIMESTAMP)", re.IGNORECASE
)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    @property
    def upper(self) -> str:
        return self.text.upper() if self.kind == "word" else ""

    @property
    def identifier(self) -> str:
        if self.kind == "name" or (self.kind == "text" and self.text[0] == "'"):
            quote = self.text[-1]
            inner = self.text[1:-1]
            return inner if quote == "]" else inner.replace(quote * 2, quote)
        return self.text


def _tokens(sql: str) -> list[_Token]:
    return [_Token(str(match.lastgroup), match.group(), match.start()) for match in _TOKEN.finditer(sql)]


def _definitions(sql: str) -> Iterator[list[_Token]]:
    """The significant tokens of each item between the table's outer parentheses; nested ones stand for themselves."""
    depth = 0
    item: list[_Token] = []
    for token in _tokens(sql):
        if token.text == "(":
            depth += 1
            if depth == 1:
                continue
        elif token.text == ")":
            depth -= 1
            if depth == 0:
                yield item
                return
        if depth == 1 and token.text == ",":
            yield item
            item = []
        elif depth >= 1 and token.kind != "space":
            item.append(token)
    raise ValueError(f"not the text of a table with columns: {sql!r}")


def _column(sql: str, name: str) -> list[_Token]:
    item = _columns(sql).get(_fold(name))
    if item is None:
        raise ValueError(f"no column {name!r} in {sql!r}")
    return item


@functools.lru_cache(maxsize=16)
def _columns(sql: str) -> Mapping[str, list[_Token]]:
    """The items by their first words. A table is asked for one column after the other, also while it is held."""
    # SQLite folds the case of ASCII letters only. What is not a column comes after all of them.
    return {_fold(item[0].identifier): item for item in reversed(list(_definitions(sql))) if item}


def _fold(name: str) -> str:
    return "".join(letter.lower() if letter.isascii() else letter for letter in name)


def _not_null(item: list[_Token]) -> list[_Token]:
    """The tokens of the column's NOT NULL constraint, with its name and its conflict clause."""
    depth = 0
    for place, token in enumerate(item):
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0 and token.upper == "NOT" and place + 1 < len(item) and item[place + 1].upper == "NULL":
            first, last = place, place + 2
            if place >= 2 and item[place - 2].upper == "CONSTRAINT":
                first = place - 2
            if [other.upper for other in item[last : last + 2]] == ["ON", "CONFLICT"]:
                last += 3
            return item[first:last]
    return []


def relax(sql: str, names: Iterable[str]) -> str:
    """The table's text with the NOT NULL of the columns put into comments; columns that have none stay as they are."""
    for name in names:
        for token in reversed(_not_null(_column(sql, name))):
            hidden = token.text.replace("%", "%25").replace("*", "%2A")
            sql = f"{sql[: token.start]}/*contraflow:{hidden}*/{sql[token.end :]}"
    return sql


def restore(sql: str, names: Iterable[str]) -> str:
    """The text as it was before :func:`relax`, byte for byte."""
    for name in names:
        start, end = _extent(sql, name)
        inner = _HIDDEN.sub(lambda match: match.group(1).replace("%2A", "*").replace("%25", "%"), sql[start:end])
        sql = f"{sql[:start]}{inner}{sql[end:]}"
    return sql


def forget(sql: str, names: Iterable[str]) -> str:
    """The text after :func:`relax`, without what :func:`restore` would need."""
    for name in names:
        start, end = _extent(sql, name)
        sql = f"{sql[:start]}{_HIDDEN.sub('', sql[start:end])}{sql[end:]}"
    return sql


def _extent(sql: str, name: str) -> tuple[int, int]:
    """Where the column's definition begins and ends, comments behind it included."""
    start = _column(sql, name)[0].start
    depth = 1
    for token in _tokens(sql):
        if token.start < start:
            continue
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0 or (depth == 1 and token.text == ","):
            return start, token.start
    raise ValueError(f"no end of column {name!r} in {sql!r}")


def set_final(sql: str, *, not_null: Iterable[str], defaults: Mapping[str, str]) -> str:
    """The text with NOT NULL and defaults (SQL text) added to columns."""
    for name, default in defaults.items():
        value = default if _SIMPLE_DEFAULT.fullmatch(default) or _is_enclosed(default) else f"({default})"
        sql = _append(sql, name, f" DEFAULT {value}")
    for name in not_null:
        if not _not_null(_column(sql, name)):
            sql = _append(sql, name, " NOT NULL")
    return sql


def set_default(sql: str, name: str, default: str | None) -> str:
    """The text with another default (SQL text) of the column, in the place of the one it has; None for none."""
    item = _column(sql, name)
    if default is not None and not (_SIMPLE_DEFAULT.fullmatch(default) or _is_enclosed(default)):
        default = f"({default})"
    places = _default(item)
    if places is None:
        return sql if default is None else _append(sql, name, f" DEFAULT {default}")
    start, end = item[places[0]].start, item[places[1]].end
    if default is not None:
        return f"{sql[:start]}DEFAULT {default}{sql[end:]}"
    return f"{sql[:start].rstrip()}{sql[end:]}"


def _default(item: list[_Token]) -> tuple[int, int] | None:
    """The first and the last token of the column's DEFAULT."""
    depth = 0
    first = None
    for place, token in enumerate(item):
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if first is None:
            first = place if depth == 0 and token.upper == "DEFAULT" else None
        elif depth == 0 and token.text not in ("+", "-"):
            # Digits and points are tokens of their own.
            following = item[place + 1] if place + 1 < len(item) else None
            if token.text == ")" or following is None or following.start != token.end:
                return first, place
    return None


_CONSTRAINTS = frozenset(
    {"CONSTRAINT", "PRIMARY", "NOT", "NULL", "UNIQUE", "CHECK", "DEFAULT", "COLLATE", "REFERENCES", "GENERATED", "AS"}
)


def type_of(sql: str, name: str) -> str:
    """The column's type as it stands in the table's text; empty if it has none."""
    start, end = _type(sql, name)
    return sql[start:end]


def retype(sql: str, name: str, type_text: str) -> str:
    """The text with another type of the column."""
    start, end = _type(sql, name)
    return f"{sql[:start]}{type_text}{sql[end:]}"


def _type(sql: str, name: str) -> tuple[int, int]:
    item = _column(sql, name)
    depth, last = 0, 0
    for place, token in enumerate(item[1:], start=1):
        if depth == 0 and token.upper in _CONSTRAINTS:
            break
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        last = place
    return (item[1].start, item[last].end) if last else (item[0].end, item[0].end)


def drop_unique(sql: str, columns: Sequence[str]) -> str:
    """The text without any UNIQUE constraint on exactly these columns, of a column or of the table.

    Raises ValueError if there is none.
    """
    wanted = [_fold(column) for column in columns]
    places = []
    before = 0
    for item in _definitions(sql):
        places += [
            # The comma before a constraint of the table goes with it.
            (before if whole else item[first].start, item[last].end)
            for first, last, whole, names in _uniques(item)
            if names == wanted
        ]
        before = item[-1].end
    if not places:
        raise ValueError(f"no UNIQUE on {', '.join(columns)} in {sql!r}")
    for start, end in reversed(places):
        sql = sql[:start] + sql[end:]
    return sql


def _uniques(item: list[_Token]) -> Iterator[tuple[int, int, bool, list[str]]]:
    """The UNIQUE constraints of an item: first and last token, whether that is the whole item, and the columns."""
    depth = 0
    for place, token in enumerate(item):
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth or token.upper != "UNIQUE":
            continue
        first = place - 2 if place >= 2 and item[place - 2].upper == "CONSTRAINT" else place
        last = place
        names = [_fold(item[0].identifier)]
        if first == 0:
            close = next(index for index in range(place, len(item)) if item[index].text == ")")
            inside = item[place + 2 : close]
            starts = [0, *(index + 1 for index, other in enumerate(inside) if other.text == ",")]
            names, last = [_fold(inside[start].identifier) for start in starts], close
        if [other.upper for other in item[last + 1 : last + 3]] == ["ON", "CONFLICT"]:
            last += 3
        if first == 0 and last + 1 < len(item):
            raise ValueError(f"constraints without a comma between them: {item[place].text}")
        yield first, last, first == 0, names


_OF_TABLE = frozenset({"CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"})


def add_column(sql: str, definition: str) -> str:
    """The text with another column behind those that it has."""
    columns = [item for item in _definitions(sql) if item[0].upper not in _OF_TABLE]
    end = columns[-1][-1].end
    return f"{sql[:end]}, {definition}{sql[end:]}"


_FORMER = re.compile(r" /\*contraflow was (.*?)\*/")


def with_former(sql: str, former: str) -> str:
    """The text with another one, which the table had before, kept in a comment."""
    end = list(_definitions(sql))[-1][-1].end
    # Nothing in it looks like SQL to whoever looks for constraints in the text by a pattern.
    kept = base64.b64encode(former.encode()).decode()
    return f"{sql[:end]} /*contraflow was {kept}*/{sql[end:]}"


def former(sql: str) -> str:
    """The text that the table had. Raises ValueError if there is none."""
    match = _FORMER.search(sql)
    if match is None:
        raise ValueError(f"no former text in {sql!r}")
    return base64.b64decode(match[1]).decode()


def without_former(sql: str) -> str:
    """The text without the one that it was before."""
    return _FORMER.sub("", sql)


def drop_primary(sql: str) -> str:
    """The text without its PRIMARY KEY, of a column or of the table; unchanged if it has none."""
    before = 0
    for item in _definitions(sql):
        depth = 0
        for place, token in enumerate(item):
            depth += {"(": 1, ")": -1}.get(token.text, 0)
            if depth or token.upper != "PRIMARY":
                continue
            first = place - 2 if place >= 2 and item[place - 2].upper == "CONSTRAINT" else place
            last = place + 1  # KEY
            if first == 0:
                last = _closing(item, last + 1)
            elif last + 1 < len(item) and item[last + 1].upper in ("ASC", "DESC"):
                last += 1
            last = _with_clauses(item, last)
            if last + 1 < len(item) and item[last + 1].upper == "AUTOINCREMENT":
                last += 1
            if first == 0:  # the comma before a constraint of the table goes with it
                return sql[:before] + sql[item[last].end :]
            return sql[: item[first].start].rstrip() + sql[item[last].end :]
        before = item[-1].end
    return sql


def collations(sql: str) -> dict[str, str]:
    """The collation of each column whose definition names one: SQLAlchemy does not reflect it."""
    found = {}
    for item in _definitions(sql):
        depth = 0
        for place, token in enumerate(item[:-1]):
            depth += {"(": 1, ")": -1}.get(token.text, 0)
            # Inside of parentheses it belongs to a check, a default or a generated value.
            if depth == 0 and token.upper == "COLLATE":
                found[item[0].identifier] = item[place + 1].identifier
    return found


def _names(sql: str) -> Iterator[_Token]:
    for item in _definitions(sql):
        for place, token in enumerate(item[:-1]):
            if token.upper == "CONSTRAINT":
                yield item[place + 1]


def constraint_names(sql: str) -> frozenset[str]:
    """The names of the constraints in the text, in lower case as SQLite compares them."""
    return frozenset(_fold(name.identifier) for name in _names(sql))


def called(sql: str) -> frozenset[str]:
    """The names of the constraints in the text as they are spelt there, and as SQLAlchemy reads them: with doubled
    quotes.
    """
    names = list(_names(sql))
    return frozenset([*(name.identifier for name in names), *(name.text.strip('"') for name in names)])


def add_constraint(sql: str, name: str, clause: str) -> str:
    """The text with a constraint of the table behind all that is there; unchanged if one has the name.

    On a line of its own: SQLAlchemy looks for constraints in the text, and takes all of a line before a foreign key,
    from the first CONSTRAINT on, for its name.
    """
    if _fold(name) in constraint_names(sql):
        return sql
    end = list(_definitions(sql))[-1][-1].end
    return f"{sql[:end]},\n\t{clause}{sql[end:]}"


def drop_constraint(sql: str, constraint: Constraint) -> str:
    """The text without a foreign key or check, of a column or of the table; unchanged if it is not there.

    Raises ValueError for a text that is not understood.
    """
    word = "CHECK" if isinstance(constraint, Check) else "REFERENCES"
    places = []
    before = 0
    for item in _definitions(sql):
        for first, last, inside, name in _clauses(item, word):
            if not _is_meant(constraint, item, first, inside, name):
                continue
            if first == 0 and last + 1 < len(item):
                raise ValueError(f"constraints without a comma between them: {item[last + 1].text}")
            # The comma before a constraint of the table goes with it.
            places.append((before if first == 0 else item[first].start, item[last].end))
        before = item[-1].end
    for start, end in reversed(places):
        sql = sql[:start] + sql[end:]
    return sql


def _is_meant(constraint: Constraint, item: list[_Token], first: int, inside: list[_Token], name: str | None) -> bool:
    if constraint.name is not None and name is not None:
        return _fold(name) == _fold(constraint.name)
    if isinstance(constraint, Check):
        wanted = [token.text for token in _tokens(constraint.text) if token.kind != "space"]
        return constraint.name is None and [token.text for token in inside] == wanted
    names = [_fold(token.identifier) for token in inside if token.text != ","] if first == 0 else []
    return (names or [_fold(item[0].identifier)]) == [_fold(column) for column in constraint.columns]


def _clauses(item: list[_Token], word: str) -> Iterator[tuple[int, int, list[_Token], str | None]]:
    """Foreign keys (``REFERENCES``) or checks of an item: first and last token, what stands in their first
    parentheses, and their name. The first token is the item's own for a constraint of the table.
    """
    depth = 0
    for place, token in enumerate(item):
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth or token.upper != word:
            continue
        first, inside = place, []
        if word == "CHECK":
            last = _closing(item, place + 1)
            inside = item[place + 2 : last]
        else:
            last = place + 1  # the other table's name
            if last + 1 < len(item) and item[last + 1].text == "(":
                last = _closing(item, last + 1)
            start = next(
                (at for at in (0, 2) if [part.upper for part in item[at : at + 2]] == ["FOREIGN", "KEY"]), None
            )
            if start is not None:
                first, inside = start, item[start + 3 : _closing(item, start + 2)]
        name = None
        if first >= 2 and item[first - 2].upper == "CONSTRAINT":
            first, name = first - 2, item[first - 1].identifier
        yield first, _with_clauses(item, last), inside, name


def _closing(item: list[_Token], place: int) -> int:
    """Where the parenthesis that opens at ``place`` is closed."""
    depth = 0
    for index in range(place, len(item)):
        depth += {"(": 1, ")": -1}.get(item[index].text, 0)
        if depth == 0:
            return index
    raise ValueError(f"no end of parentheses: {item[place - 1].text}")


_FOLLOWING = (
    *(("ON", event, *action.split()) for event in ("DELETE", "UPDATE") for action in _ACTIONS),
    *(("ON", "CONFLICT", word) for word in ("ROLLBACK", "ABORT", "FAIL", "IGNORE", "REPLACE")),
    *(("MATCH", word) for word in ("SIMPLE", "PARTIAL", "FULL")),
    ("NOT", "DEFERRABLE"),
    ("DEFERRABLE",),
    ("INITIALLY", "DEFERRED"),
    ("INITIALLY", "IMMEDIATE"),
)
"""What may follow the parentheses of a foreign key or a check (https://www.sqlite.org/syntax/foreign-key-clause.html)."""


def _with_clauses(item: list[_Token], last: int) -> int:
    words = tuple(token.upper for token in item)
    while True:
        length = next((len(part) for part in _FOLLOWING if words[last + 1 : last + 1 + len(part)] == part), 0)
        if not length:
            return last
        last += length


def _is_enclosed(text: str) -> bool:
    """Whether one pair of parentheses encloses the whole text."""
    depth = 0
    for token in _tokens(text):
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0 and token.end < len(text):
            return False
    return text.startswith("(") and text.endswith(")")


def _append(sql: str, name: str, text: str) -> str:
    end = _column(sql, name)[-1].end
    return f"{sql[:end]}{text}{sql[end:]}"


def options(sql: str) -> list[str]:
    """The words behind the table's closing parenthesis, in upper case: STRICT, WITHOUT, ROWID."""
    depth = 0
    words: list[str] = []
    for token in _tokens(sql):
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if token.text == ")":
            words = []
        elif depth == 0 and token.kind == "word":
            words.append(token.upper)
    return words


def index_name(sql: str) -> str:
    """The name of the index in the text of a CREATE INDEX."""
    tokens = [token for token in _tokens(sql) if token.kind != "space"]
    return tokens[next(place for place, token in enumerate(tokens) if token.upper == "INDEX") + 1].identifier


def placed(sql: str, schema: str) -> str:
    """The text of a CREATE INDEX or CREATE TRIGGER for another schema, which is given as SQL."""
    tokens = [token for token in _tokens(sql) if token.kind != "space"]
    place = next(index for index, token in enumerate(tokens) if token.upper in ("INDEX", "TRIGGER")) + 1
    return f"{sql[: tokens[place].start]}{schema}.{sql[tokens[place].start :]}"


def counts(sql: str) -> bool:
    """Whether the table keeps the largest key it ever made (AUTOINCREMENT), in ``sqlite_sequence``."""
    return any(token.upper == "AUTOINCREMENT" for token in _tokens(sql))


def named(sql: str, name: str) -> str:
    """The text of a CREATE TABLE for a table of another name, which is given as SQL."""
    tokens = [token for token in _tokens(sql) if token.kind != "space"]
    place = next(index for index, token in enumerate(tokens) if token.upper == "TABLE") + 1
    return f"{sql[: tokens[place].start]}{name}{sql[tokens[place].end :]}"


def key_of_index(sql: str) -> str:
    """What the text of a CREATE INDEX says behind its table."""
    tokens = [token for token in _tokens(sql) if token.kind != "space"]
    on = next(index for index, token in enumerate(tokens) if token.upper == "ON") + 1
    return sql[tokens[on].end :].strip()


def indexed(sql: str, name: str, table: str) -> str:
    """The text of a CREATE INDEX for an index of another name on another table; both are given as SQL."""
    tokens = [token for token in _tokens(sql) if token.kind != "space"]
    place = next(index for index, token in enumerate(tokens) if token.upper == "INDEX") + 1
    on = next(index for index, token in enumerate(tokens) if index > place and token.upper == "ON") + 1
    between = sql[tokens[place].end : tokens[on].start]
    return f"{sql[: tokens[place].start]}{name}{between}{table}{sql[tokens[on].end :]}"
