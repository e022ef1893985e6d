"""Reading the texts that MySQL and MariaDB give: column definitions, triggers and grants."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

__all__ = [
    "Grants",
    "assigned",
    "checks_time",
    "declared_type",
    "filler",
    "is_copied_for_comment",
    "literal",
    "literal_default",
    "recommented",
    "redefined",
    "retyped",
    "type_part",
]

_TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<comment>/\*.*?\*/|(?:\#|--(?=\s))[^\n]*)
    | (?P<name>`(?:[^`]|``)*`)
    | (?P<text>'(?:[^'\\]|\\.|'')*')
    | (?P<quoted>"(?:[^"\\]|\\.|"")*")
    | (?P<word>[^\W\d][\w$]*)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
# What ends a type, or a default, in a column definition of SHOW CREATE TABLE.
_ATTRIBUTES = frozenset(
    {"NOT", "NULL", "DEFAULT", "INVISIBLE", "COMMENT", "CHECK", "ON", "AUTO_INCREMENT", "GENERATED", "AS"}
    | {"REFERENCES", "COLUMN_FORMAT", "STORAGE", "WITHOUT", "WITH", "ENGINE_ATTRIBUTE", "SECONDARY_ENGINE_ATTRIBUTE"}
)
_LITERAL = re.compile(
    r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?|'(?:[^'\\]|\\.|'')*'|NULL|TRUE|FALSE|[bBxX]'[0-9A-Fa-f]*'", re.IGNORECASE
)
_NOW = re.compile(r"(CURRENT_TIMESTAMP|NOW|LOCALTIME|LOCALTIMESTAMP)(\(\d*\))?", re.IGNORECASE)
_EXPRESSION_ONLY = re.compile(r"(tiny|medium|long)?(text|blob)|json|geometry|point", re.IGNORECASE)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str

    @property
    def upper(self) -> str:
        return self.text.upper() if self.kind == "word" else ""


def _tokens(sql: str) -> list[_Token]:
    return [_Token(str(match.lastgroup), match.group()) for match in _TOKEN.finditer(sql)]


def assigned(statement: str) -> frozenset[str]:
    """The columns of NEW to which the text of a trigger assigns by SET, in lower case."""
    found = set()
    depth, begins = 0, False
    item: list[str] = []  # how one assignment of a SET begins: NEW, a dot, the column, and = or :=
    for token in _tokens(statement):
        if token.kind in ("space", "comment"):
            continue
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if token.upper == "SET" or (begins and not depth and token.text == ","):
            depth, begins, item = 0, True, []
        elif token.text == ";":
            begins = False
        elif begins and len(item) < 4:
            item.append(_unquoted(token.text) if token.kind in ("name", "quoted") else token.text)
            if len(item) == 4 and item[0].upper() == "NEW" and item[1] == "." and item[3] in ("=", ":"):
                found.add(item[2].lower())
    return frozenset(found)


def _definition(create: str, column: str) -> list[_Token]:
    """The tokens that stand behind the column's name in a SHOW CREATE TABLE; spaces kept."""
    depth = 0
    item: list[_Token] = []
    for token in _tokens(create):
        if token.text == "(" and not depth:
            depth = 1
            continue
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        if depth == 0 or (depth == 1 and token.text == ","):
            while item and item[0].kind == "space":
                item.pop(0)
            # The server tells names apart without their case.
            if item and item[0].kind == "name" and _unquoted(item[0].text).lower() == column.lower():
                return item[1:]
            item = []
        elif depth:
            item.append(token)
    raise ValueError(f"no column {column!r} in {create!r}")


def _unquoted(name: str) -> str:
    return name[1:-1].replace("``", "`")


def _parts(tokens: Iterable[_Token]) -> Iterator[list[_Token]]:
    """Tokens grouped into the type and then one group for each attribute, with what belongs to it."""
    part: list[_Token] = []
    depth = 0
    for token in tokens:
        depth += {"(": 1, ")": -1}.get(token.text, 0)
        hides = token.kind == "comment" and "INVISIBLE" in token.text
        starts = depth == 0 and (token.upper in _ATTRIBUTES or hides)
        words = [other.upper for other in part if other.kind != "space"]
        if starts and words not in (["NOT"], ["DEFAULT"]):  # NOT NULL and DEFAULT NULL are one attribute each
            yield part
            part = []
        part.append(token)
    yield part


def redefined(create: str, column: str, *, not_null: bool, default: str | None) -> str:
    """The column's definition, as found in a SHOW CREATE TABLE, made visible, with this nullability and default.

    ``default`` is SQL text; None keeps the default that was found, which a NOT NULL column cannot have as NULL. Type,
    character set, collation, comment and checks stay as they are written there.
    """
    type_, *attributes = _parts(_definition(create, column))
    kept = []
    for part in attributes:
        words = [token.upper for token in part if token.kind != "space"]
        if _checks_json(part) and _is_json(type_, create):
            # How MariaDB shows its type JSON; written out like this it would not be rebuilt in place (error 1846).
            type_ = [_Token("word", "json")]
            continue
        if words[0] in ("NOT", "NULL", "INVISIBLE") or part[0].kind == "comment":
            continue
        if words[0] == "DEFAULT":
            if default is None and words[1:] != ["NULL"]:
                default = "".join(token.text for token in part).strip()[len("DEFAULT") :].strip()
            continue
        kept.append("".join(token.text for token in part).strip())
    computed = any(part.upper().startswith(("GENERATED", "AS ", "AS(")) for part in kept)
    text = [
        "".join(token.text for token in type_).strip(),
        # One that is computed may say it behind its expression only.
        *([] if computed else ["NOT NULL" if not_null else "NULL"]),
        *([f"DEFAULT {literal_default(default, _type_name(type_))}"] if default is not None else []),
        *kept,
    ]
    return " ".join(text)


def retyped(create: str, column: str, type_text: str) -> str:
    """The column's definition, as found in a SHOW CREATE TABLE, with another type and nothing else changed.

    Character set and collation stay, unless ``type_text`` says its own.
    """
    _, *attributes = _parts(_definition(create, column))
    kept = "".join(token.text for part in attributes for token in part).strip()
    return f"{type_part(create, column, type_text)} {kept}".rstrip()


def recommented(create: str, column: str, comment: str | None) -> str:
    """The column's definition, as found in a SHOW CREATE TABLE, with another comment or none, and nothing else changed.

    It stays invisible, too, if it is. None takes the comment away.
    """
    type_, *attributes = _parts(_definition(create, column))
    kept = []
    for part in attributes:
        left = part
        if part[0].upper == "COMMENT":
            text = next(place for place, token in enumerate(part) if token.kind == "text")
            left = part[text + 1 :]  # what may stand behind it begins no attribute of its own
        elif _checks_json(part) and _is_json(type_, create):
            type_ = [_Token("word", "json")]  # see redefined()
            continue
        kept.append("".join(token.text for token in left).strip())
    place = next((place for place, part in enumerate(kept) if part.upper().startswith("CHECK")), len(kept))
    kept[place:place] = [] if comment is None else [f"COMMENT {literal(comment)}"]
    return " ".join(["".join(token.text for token in type_).strip(), *filter(None, kept)])


def is_copied_for_comment(create: str, column: str, *, indexed: bool) -> bool:
    """Whether MariaDB copies the table for another comment of the column.

    MariaDB 10.11 does for a column that it computes, if it stores it or has it in an index (error 1845), and for one
    under a check of its own that says JSON of what it does not call so (1846). MySQL 9.7 does for none. ``indexed``: it
    will be in an index by then.
    """
    indexed = indexed or _is_indexed(create, column)
    type_, *attributes = _parts(_definition(create, column))
    for part in attributes:
        words = [token.upper for token in part if token.kind != "space"]
        if words[0] in ("GENERATED", "AS") and (words[-1] in ("STORED", "PERSISTENT") or indexed):
            return True
        if _checks_json(part) and not _is_json(type_, create):
            return True
    return False


def _is_indexed(create: str, column: str) -> bool:
    for line in create.splitlines():
        tokens = [token for token in _tokens(line) if token.kind != "space"]
        if tokens and tokens[0].upper in ("PRIMARY", "UNIQUE", "KEY", "FULLTEXT", "SPATIAL"):
            opening = next((place for place, token in enumerate(tokens) if token.text == "("), len(tokens))
            names = [_unquoted(token.text).lower() for token in tokens[opening:] if token.kind == "name"]
            if column.lower() in names:
                return True
    return False


def _checks_json(part: Iterable[_Token]) -> bool:
    """Whether an attribute is the check by which MariaDB knows its type JSON."""
    return "".join(token.text for token in part if token.kind != "space").startswith("CHECK(json_valid(`")


def _is_json(type_: Iterable[_Token], create: str) -> bool:
    """Whether a type with that check is what MariaDB makes of JSON, in whose place it may be called so."""
    text = " ".join("".join(token.text for token in type_).split())
    bare = text == "longtext" and create.rstrip().rpartition("\n")[2].find("COLLATE=utf8mb4_bin") > 0
    return bare or text == "longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"


def declared_type(create: str, column: str) -> str:
    """The column's type as it stands in a SHOW CREATE TABLE, with its character set and collation."""
    type_, *_ = _parts(_definition(create, column))
    return "".join(token.text for token in type_).strip()


def type_part(create: str, column: str, type_text: str) -> str:
    """``type_text`` with the character set and collation that the column has, unless it says its own."""
    charset = re.search(r"\b(CHARACTER SET|COLLATE)\b.*", declared_type(create, column), re.DOTALL)
    said = re.search(r"\b(CHARACTER SET|COLLATE)\b", type_text)
    return f"{type_text} {charset[0].strip()}" if charset and not said else type_text


def checks_time(create: str, types: Mapping[str, str]) -> bool:
    """Whether a check that is enforced reads a date or a time; ``types`` are those of all columns."""
    temporal = {name.lower() for name, text in types.items() if text.lower().startswith(("date", "time"))}
    for line in create.splitlines():
        tokens = [token for token in _tokens(line) if token.kind != "space"]
        ignored = any(token.kind == "comment" and "NOT ENFORCED" in token.text for token in tokens)
        if [token.upper for token in tokens[:3]] != ["CONSTRAINT", "", "CHECK"] or ignored:
            continue
        if temporal & {_unquoted(token.text).lower() for token in tokens[2:] if token.kind == "name"}:
            return True
    return False


def _type_name(tokens: list[_Token]) -> str:
    return next((token.text for token in tokens if token.kind == "word"), "")


def literal_default(default: str, type_name: str) -> str:
    """``default`` (SQL text) as it may stand behind DEFAULT: expressions in parentheses."""
    if _NOW.fullmatch(default) or (default.startswith("(") and default.endswith(")")):
        return default
    if _LITERAL.fullmatch(default) and not _EXPRESSION_ONLY.fullmatch(type_name):
        return default
    return f"({default})"


def literal(text: str) -> str:
    """The text as a literal, in a session that leaves NO_BACKSLASH_ESCAPES off."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


_FILLERS = {
    "date": "'1970-01-01'",
    "datetime": "'1970-01-02 00:00:00'",
    "timestamp": "'1970-01-02 00:00:00'",
    "time": "'00:00:00'",
    "year": "1970",
    "json": "(JSON_OBJECT())",
    "bit": "b'0'",
    "uuid": "'00000000-0000-0000-0000-000000000000'",
    "inet6": "'::'",
    "inet4": "'0.0.0.0'",
    "geometry": "(POINT(0, 0))",
    "point": "(POINT(0, 0))",
    **dict.fromkeys(["char", "varchar", "binary", "varbinary", "set"], "''"),
    **dict.fromkeys(
        [f"{size}{kind}" for size in ("tiny", "", "medium", "long") for kind in ("text", "blob")], "(CONCAT(''))"
    ),
    **dict.fromkeys(["tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "float", "double"], "0"),
}


def filler(column_type: str) -> str | None:
    """Some constant of the type (COLUMN_TYPE of information_schema), as it stands behind DEFAULT; None without one.

    For a column that is about to be dropped, and that nobody reads any more.
    """
    name = re.split(r"[ (]", column_type, maxsplit=1)[0].lower()
    if name == "enum":
        return next((token.text for token in _tokens(column_type) if token.kind == "text"), None)
    return _FILLERS.get(name)


_GRANT = re.compile(r"GRANT (?P<what>.+?) ON (?:TABLE )?(?P<scope>\S+|`.+?`\.(?:\*|`.+?`)) TO ", re.DOTALL)


class Grants:
    """What an account may do, read from SHOW GRANTS, which lists the privileges of active roles too."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._granted: list[tuple[frozenset[str], str, str]] = []
        for line in lines:
            match = _GRANT.match(line)
            if match is None:
                continue  # a role, or a default role
            what = re.sub(r"\([^)]*\)", "", match.group("what"))
            database, _, table = match.group("scope").rpartition(".")
            privileges = frozenset(part.strip().upper() for part in what.split(","))
            self._granted.append((privileges, _scope(database), _scope(table)))

    def allows(self, privilege: str, database: str | None = None, table: str | None = None) -> bool:
        """Whether ``privilege`` is held everywhere, on the database or on the table."""
        for privileges, on_database, on_table in self._granted:
            everywhere = on_database == "*"
            if not everywhere and (database is None or not _like(on_database, database)):
                continue
            if on_table != "*" and on_table != table:
                continue
            if privilege in privileges or "ALL PRIVILEGES" in privileges or "ALL" in privileges:
                return True
        return False


def _scope(text: str) -> str:
    return _unquoted(text) if text.startswith("`") else text


def _like(pattern: str, name: str) -> bool:
    """Whether a database matches the pattern of a grant (``%`` and ``_``, escaped by a backslash)."""
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    words = {"%": ".*", "_": "."}
    regex = "".join(words.get(part, re.escape(part.removeprefix("\\"))) for part in parts)
    return re.fullmatch(regex, name, re.DOTALL) is not None
