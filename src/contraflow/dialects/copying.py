"""A column that follows columns of other tables, as trigger bodies and queries.

One question is asked everywhere: *is the image due*, that is, do the paths find something else for this row than when
they were last asked? Triggers on the tables of the paths ask it of the rows that a change may concern, those on the
target of the row itself, the backfill of every row, and the verification counts the rows of which the answer is yes. So
a change that no trigger saw is found, and no order of statements matters.

Who asks must see what others have written: the rows of the target are locked before the question is asked (PostgreSQL:
in a statement before, whose successor sees what was committed meanwhile), and where a row is new or leads elsewhere, so
are the rows it leads to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from contraflow.copies import Copy, Path, Place
from contraflow.dialects.base import BackfillText, ProbeText, escape
from contraflow.dialects.compiler import Compiler
from contraflow.dialects.data import beyond, bounds
from contraflow.dialects.pair_words import in_block
from contraflow.dialects.plpgsql import definer_function
from contraflow.dialects.sync import TriggerText
from contraflow.lens import Side
from contraflow.steps import Backfill
from contraflow.syncs import Sync, SyncColumn

__all__ = ["copy_backfill", "copy_fill", "copy_probe", "copy_repair", "copy_triggers"]

_MYSQL = ("mysql", "mariadb")
Row = Callable[[str], str]
"""The text of a column of one row."""


@dataclass(frozen=True, kw_only=True)
class _Words:
    """The parts of the statements."""

    copy: Copy
    compiler: Compiler
    product: str
    default_schema: str | None = None
    """What an unqualified table is qualified with (PostgreSQL: functions that run as their owner need it)."""

    def quote(self, name: str) -> str:
        return self.compiler.quote(name)

    def table(self, place: Place) -> str:
        if self.product == "sqlite":  # inside a trigger SQLite forbids qualified names: all are of one file
            return self.quote(place[1])
        return self.compiler.table(place[1], place[0] or self.default_schema)

    @property
    def column(self) -> str:
        return self.quote(self.copy.column)

    @property
    def image(self) -> str:
        return self.quote(self.copy.image)

    @property
    def stored(self) -> SyncColumn:
        return SyncColumn(name=self.copy.column, type=self.copy.type, nullable=True)

    @property
    def target(self) -> str:
        """What stands before the target's columns in a statement of ``updated``."""
        return self.quote(self.copy.table) if self.product == "sqlite" else "cf_row"

    def row(self, alias: str) -> Row:
        return lambda name: f"{alias}.{self.quote(name)}"

    # -- what the paths find --

    def joined(self, path: Path, upto: int, first: str) -> str:
        """FROM and WHERE of the tables of a path, as cf_1, cf_2 ..., as far as ``upto``; ``first`` finds the first."""
        tables = []
        for number, hop in enumerate(path.hops[:upto], start=1):
            table = f"{self.table(hop.place)} AS cf_{number}"
            if number > 1:
                before, here = self.row(f"cf_{number - 1}"), self.row(f"cf_{number}")
                table += " ON " + " AND ".join(f"{here(there)} = {before(name)}" for name, there in hop.on.items())
            tables.append(table)
        return f"FROM {' JOIN '.join(tables)} WHERE {first}"

    def linked(self, path: Path, row: Row) -> str:
        """Whether the first row of the path, cf_1, is one of a row of the target."""
        here = self.row("cf_1")
        return " AND ".join(f"{here(there)} = {row(name)}" for name, there in path.hops[0].on.items())

    def found(self, row: Row, *, locked: bool = False, without: tuple[Place, Row] | None = None) -> str:
        """What the paths find for a row of the target; ``without`` a row of one of the tables that is about to go."""
        parts = [f"({self._of_path(path, row, locked, without)})" for path in self.copy.paths]
        return parts[0] if len(parts) == 1 else f"COALESCE({', '.join(parts)})"

    def _of_path(self, path: Path, row: Row, locked: bool, without: tuple[Place, Row] | None) -> str:
        last = self.row(f"cf_{len(path.hops)}")
        text = f"SELECT {last(path.column)} {self.joined(path, len(path.hops), self.linked(path, row))}"
        for number, hop in enumerate(path.hops, start=1):
            if without is not None and hop.place == without[0]:
                here, gone = self.row(f"cf_{number}"), without[1]
                text += f" AND NOT ({' AND '.join(f'{here(name)} = {gone(name)}' for name in hop.key)})"
        order = [
            self.row(f"cf_{number}")(name)
            for number, hop in enumerate(path.hops, start=1)
            if not hop.single
            for name in hop.key
        ]
        if order:
            text += f" AND {last(path.column)} IS NOT NULL ORDER BY {', '.join(order)} LIMIT 1"
        # As it was committed last, whatever the transaction's snapshot shows.
        return f"{text} LOCK IN SHARE MODE" if locked else text

    # -- the question, and what follows --

    def due(self, image: str, found: str) -> str:
        """Whether the paths find something else than they did."""
        differs = f"NOT ({self.compiler.same(image, self.compiler.coerced(found, self.stored), self.copy.type)})"
        return f"({differs} AND ({found}) IS NOT NULL)" if self.copy.keeps else f"({differs})"

    def value(self, column: str, image: str, found: str) -> str:
        """What the column holds then."""
        if self.copy.winner == "old":
            return found
        return f"COALESCE(CASE WHEN {image} IS NULL THEN {column} END, {found})"

    def assigned(self, found: str, column: str | None = None, prefix: str = "") -> str:
        """What SET says. The column first: MySQL lets the second assignment see the first one."""
        own = self.row(self.target)
        value = self.value(own(self.copy.column), own(self.copy.image), found) if column is None else column
        kept = [f"{prefix}{self.quote(name)} = {own(name)}" for name in self.copy.untouched]
        return ", ".join([f"{prefix}{self.column} = {value}", f"{prefix}{self.image} = {found}", *kept])

    def unchanged(self, place: Place, names: Sequence[str]) -> str:
        """Whether a statement left columns alone."""
        types = self.copy.types[place]
        new, old = self.row("NEW"), self.row("OLD")
        return " AND ".join(f"({self.compiler.unchanged(new(name), old(name), types[name])})" for name in names)

    def concerned(self, path: Path, position: int, row: Row) -> str:
        """Whether a row of the target leads to a row of one of the path's tables."""
        hop, own = path.hops[position], self.row(self.target)
        if position == 0:
            return " AND ".join(f"{own(name)} = {row(there)}" for name, there in hop.on.items())
        before, here = self.row(f"cf_{position}"), self.row("cf_1")
        last = " AND ".join(f"{before(name)} = {row(there)}" for name, there in hop.on.items())
        names = path.hops[0].on
        left = ", ".join(own(name) for name in names)
        right = ", ".join(here(there) for there in names.values())
        found = f"SELECT {right} {self.joined(path, position, last)}"
        return f"{left if len(names) == 1 else f'({left})'} IN ({found})"

    def updated(self, path: Path, position: int, row: Row, *, gone: Place | None = None) -> str:
        """The UPDATE of the rows that lead to a row of one of the path's tables, or no more (``gone``)."""
        own = self.row(self.target)
        locked = self.product in _MYSQL
        found = self.found(own, locked=locked, without=(gone, row) if gone is not None else None)
        due = self.due(own(self.copy.image), found)
        table = self.table(self.copy.target)
        if self.product == "sqlite":
            where = f"{self.concerned(path, position, row)} AND {due}"
            return f"UPDATE {table} SET {self.assigned(found)} WHERE {where}"
        if position == 0 or self.product not in _MYSQL:
            where = f"{self.concerned(path, position, row)} AND {due}"
            return f"UPDATE {table} AS cf_row SET {self.assigned(found)} WHERE {where}"
        # MariaDB would look at every row of the target for IN (SELECT ...).
        names = path.hops[0].on
        before, here = self.row(f"cf_{position}"), self.row("cf_1")
        last = " AND ".join(f"{before(name)} = {row(there)}" for name, there in path.hops[position].on.items())
        shown = ", ".join(f"{here(there)} AS cf_{place}" for place, there in enumerate(names.values()))
        rows = f"SELECT DISTINCT {shown} {self.joined(path, position, last)} LOCK IN SHARE MODE"
        on = " AND ".join(f"{own(name)} = cf_found.cf_{place}" for place, name in enumerate(names))
        return (
            f"UPDATE ({rows}) AS cf_found JOIN {table} AS cf_row ON {on}"
            f" SET {self.assigned(found, prefix='cf_row.')} WHERE {due}"
        )


def _when_changed(words: _Words, place: Place, path: Path, position: int, lines: Sequence[str]) -> list[str]:
    """Lines of blocks for the rows that led to a row before it was changed."""
    return [f"IF NOT ({words.unchanged(place, path.relevant(position)[0])}) THEN", *in_block(lines), "END IF;"]


def _watched(words: _Words, place: Place) -> str:
    """Whether an UPDATE changes anything that the paths read."""
    names = [name for path, position in words.copy.steps_on(place) for part in path.relevant(position) for name in part]
    return f"NOT ({words.unchanged(place, tuple(dict.fromkeys(names)))})"


# --- PostgreSQL -------------------------------------------------------------------------------------------------------


def _locks_onwards(words: _Words, path: Path, position: int, row: Row) -> Iterator[str]:
    """Lock the rows that a row of one of the path's tables (-1: of the target) leads to."""
    rest = path.hops[position + 1 :]
    if not rest:
        return
    here = words.row("cf_1")
    first = " AND ".join(f"{here(there)} = {row(name)}" for name, there in rest[0].on.items())
    joined = words.joined(Path(hops=rest, column=path.column), len(rest), first)
    yield f"PERFORM 1 {joined} FOR SHARE;"


def _postgresql_rows(words: _Words, path: Path, position: int, alias: str) -> list[str]:
    """Ask the question of all rows of the target that lead to a row."""
    copy, row = words.copy, words.row(alias)
    keys = ", ".join(words.row("cf_row")(name) for name in copy.key)
    rows = f"FROM {words.table(copy.target)} AS cf_row WHERE {words.concerned(path, position, row)}"
    return [
        *(_locks_onwards(words, path, position, row) if alias == "NEW" else ()),
        f"PERFORM 1 {rows} ORDER BY {keys} FOR NO KEY UPDATE;",
        f"{words.updated(path, position, row)};",
    ]


def _postgresql_target(words: _Words) -> list[str]:
    new = words.row("NEW")
    column, image = new(words.copy.column), new(words.copy.image)
    given = f"TG_OP = 'UPDATE' AND NOT ({words.unchanged(words.copy.target, [words.copy.column])})"
    value = [f"{column} := {words.value(column, image, 'cf_value')};"]
    if words.copy.winner == "new":
        value = [f"IF NOT ({given}) THEN", *in_block(value), "END IF;"]
    return [
        *(line for path in words.copy.paths for line in _locks_onwards(words, path, -1, new)),
        f"cf_value := {words.found(new)};",
        f"IF {words.due(image, 'cf_value')} THEN",
        *in_block(value),
        f"  {image} := cf_value;",
        "END IF;",
        "RETURN NEW;",
    ]


def _postgresql(words: _Words, place: Place) -> list[TriggerText]:
    copy, compiler, stem = words.copy, words.compiler, words.copy.stem(place)
    is_target = place == copy.target
    body = [f"/* contraflow {copy.fingerprint} */"]
    if is_target:
        body += _postgresql_target(words)
    else:
        after = [line for step in copy.steps_on(place) for line in _postgresql_rows(words, *step, "NEW")]
        before = [line for step in copy.steps_on(place) for line in _postgresql_rows(words, *step, "OLD")]
        left = [
            line
            for step in copy.steps_on(place)
            for line in _when_changed(words, place, *step, _postgresql_rows(words, *step, "OLD"))
        ]
        body += ["IF TG_OP = 'DELETE' THEN", *in_block(before), "  RETURN OLD;", "END IF;"]
        body += ["IF TG_OP = 'UPDATE' THEN", *in_block(left), "END IF;", *after, "RETURN NULL;"]
    declared = ["DECLARE", f"  cf_value {compiler.variable_type(words.stored)};"] if is_target else []
    schema = place[0] or words.default_schema
    function = compiler.table(stem, schema)
    # With its owner's rights: the application's role need not be allowed to read and write all tables of the paths.
    create = definer_function(compiler, stem, schema, [*declared, "BEGIN", *in_block(body), "END"])
    when = "BEFORE" if is_target else "AFTER"
    watched = f"NOT ({words.unchanged(place, copy.followed)})" if is_target and copy.followed else ""
    shapes = {
        "u": ("UPDATE", f"WHEN ({watched if is_target else _watched(words, place)}) "),
        "i": ("INSERT", ""),
        "d": ("DELETE", ""),
    }
    return [
        TriggerText(
            name=f"{stem}_{letter}",
            event=shapes[letter][0].lower(),
            create=f"CREATE TRIGGER {words.quote(f'{stem}_{letter}')} {when} {shapes[letter][0]}"
            f" ON {compiler.table(place[1], schema)} FOR EACH ROW {shapes[letter][1]}EXECUTE FUNCTION {function}()",
            function=create,
        )
        for letter in copy.triggers(place)
    ]


# --- MySQL, MariaDB ---------------------------------------------------------------------------------------------------


def _mysql_target(words: _Words, letter: str) -> list[str]:
    copy, new = words.copy, words.row("NEW")
    column, image = new(copy.column), new(copy.image)
    value = [f"SET {column} = {words.value(column, image, 'cf_value')};"]
    if copy.winner == "new" and letter == "u":
        value = [f"IF {words.unchanged(copy.target, [copy.column])} THEN", *in_block(value), "END IF;"]
    lines = [
        f"DECLARE cf_value {words.compiler.variable_type(words.stored)} DEFAULT {words.found(new, locked=True)};",
        f"IF {words.due(image, 'cf_value')} THEN",
        *in_block([*value, f"SET {image} = cf_value;"]),
        "END IF;",
    ]
    if letter == "i":
        return lines
    return [f"IF NOT ({words.unchanged(copy.target, copy.followed)}) THEN BEGIN", *in_block(lines), "END; END IF;"]


def _mysql(words: _Words, place: Place) -> list[TriggerText]:
    copy, stem = words.copy, words.copy.stem(place)
    new, old = words.row("NEW"), words.row("OLD")
    texts = []
    for letter in copy.triggers(place):
        event = {"u": "UPDATE", "i": "INSERT", "d": "DELETE"}[letter]
        if place == copy.target:
            when, body = "BEFORE", _mysql_target(words, letter)
        elif letter == "d":
            # Before: what a foreign key's action takes along fires no triggers, and has not gone yet.
            when = "BEFORE"
            body = [f"{words.updated(*step, old, gone=place)};" for step in copy.steps_on(place)]
        else:
            when = "AFTER"
            body = [f"{words.updated(*step, new)};" for step in copy.steps_on(place)]
        if letter == "u" and place != copy.target:
            left = [
                line
                for step in copy.steps_on(place)
                for line in _when_changed(words, place, *step, [f"{words.updated(*step, old)};"])
            ]
            body = [f"IF {_watched(words, place)} THEN", *in_block([*left, *body]), "END IF;"]
        name = words.compiler.table(f"{stem}_{letter}", place[0])
        opening = f"CREATE TRIGGER {name} {when} {event} ON {words.table(place)} FOR EACH ROW BEGIN"
        create = "\n".join([f"{opening} /* contraflow {copy.fingerprint} */", *in_block(body), "END"])
        texts.append(TriggerText(name=f"{stem}_{letter}", event=event.lower(), create=create))
    return texts


# --- SQLite -----------------------------------------------------------------------------------------------------------


def _sqlite(words: _Words, place: Place, *, without_rowid: bool) -> list[TriggerText]:
    copy, stem = words.copy, words.copy.stem(place)
    new, old = words.row("NEW"), words.row("OLD")
    texts = []
    for letter in copy.triggers(place):
        event = {"u": "UPDATE", "i": "INSERT", "d": "DELETE"}[letter]
        when = f"WHEN {_watched(words, place)} " if letter == "u" and place != copy.target else ""
        if place == copy.target:
            when = f"WHEN NOT ({words.unchanged(place, copy.followed)}) " if letter == "u" else ""
            body = [_sqlite_target(words, letter, copy.key if without_rowid else None)]
        elif letter == "d":
            body = [f"{words.updated(*step, old)};" for step in copy.steps_on(place)]
        else:
            body = [f"{words.updated(*step, new)};" for step in copy.steps_on(place)]
        if letter == "u" and place != copy.target:
            body = [
                *(
                    f"{words.updated(*step, old)} AND NOT ({words.unchanged(place, step[0].relevant(step[1])[0])});"
                    for step in copy.steps_on(place)
                ),
                *body,
            ]
        # The trigger is made in the table's file; inside it, and behind ON, SQLite forbids qualified names.
        name = words.compiler.table(f"{stem}_{letter}", place[0])
        opening = f"CREATE TRIGGER {name} AFTER {event} ON {words.table(place)} FOR EACH ROW {when}BEGIN"
        create = "\n".join([f"{opening} /* contraflow {copy.fingerprint} */", *in_block(body), "END"])
        texts.append(TriggerText(name=f"{stem}_{letter}", event=event.lower(), create=create))
    return texts


def _sqlite_target(words: _Words, letter: str, key: Sequence[str] | None) -> str:
    own = words.row(words.target)
    keys = [words.quote(name) for name in key] if key else ["_rowid_"]
    here = " AND ".join(f"{name} IS NEW.{name}" for name in keys)
    found = words.found(own)
    column, image = own(words.copy.column), own(words.copy.image)
    value = words.value(column, image, found)
    if letter == "u" and words.copy.winner == "new":
        given = words.unchanged(words.copy.target, [words.copy.column])
        value = f"CASE WHEN {given} THEN {value} ELSE {column} END"
    table = words.table(words.copy.target)
    return f"UPDATE {table} SET {words.assigned(found, value)} WHERE {here} AND {words.due(image, found)};"


# --- the surface ------------------------------------------------------------------------------------------------------


def copy_triggers(
    copy: Copy,
    place: Place,
    product: str,
    compiler: Compiler,
    *,
    default_schema: str | None = None,
    without_rowid: bool = False,
) -> list[TriggerText]:
    """The triggers of a copy on one of its tables, in an order of which every prefix is harmless.

    ``default_schema`` is where PostgreSQL finds tables without a schema. ``without_rowid`` says that an SQLite table
    has none.
    """
    words = _Words(copy=copy, compiler=compiler, product=product, default_schema=default_schema)
    if product == "sqlite":
        return _sqlite(words, place, without_rowid=without_rowid)
    return _mysql(words, place) if product in _MYSQL else _postgresql(words, place)


def copy_backfill(copy: Copy) -> Backfill:
    """The target as a backfill knows it."""
    touched = Sync(
        table=copy.table,
        schema=copy.schema,
        key=copy.key,
        key_types=copy.key_types,
        columns={},
        groups=(),
        marker=copy.image,
        name=copy.stem(copy.target),
    )
    return Backfill(sync=touched)


def copy_fill(copy: Copy, product: str, compiler: Compiler, *, estimate: str) -> BackfillText:
    """The statements that ask the question of every row of the target."""
    words = _Words(copy=copy, compiler=compiler, product=product)
    return _walk(words, words.assigned(_asked(words)), estimate)


def _asked(words: _Words) -> str:
    """What the paths find, for a statement that writes it."""
    return words.found(words.row(words.target), locked=words.product in _MYSQL)


def _walk(words: _Words, assigned: str, estimate: str) -> BackfillText:
    """An UPDATE, in key ranges, of the rows of the target whose image is due."""
    copy, compiler = words.copy, words.compiler
    own, table = words.row(words.target), compiler.table(copy.table, copy.schema)
    rows = table if words.product == "sqlite" else f"{table} AS cf_row"
    columns = [escape(own(name)) for name in copy.key]
    first_bound, bound = bounds(compiler, table, [escape(words.quote(name)) for name in copy.key])
    upto, after = beyond(compiler, columns, "<=", "u"), beyond(compiler, columns, ">", "k")
    image = own(copy.image)
    fill = f"{escape(f'UPDATE {rows} SET {assigned} WHERE {words.due(image, _asked(words))}')} AND {upto}"
    # A statement does not see what was committed after it began: these rows wait for whoever writes them.
    lock = f"SELECT count(*) FROM (SELECT 1 FROM {escape(rows)} WHERE {upto}"
    locked = "FOR NO KEY UPDATE) AS cf_locked"
    locks = words.product not in ("sqlite", *_MYSQL)
    return BackfillText(
        first_bound=first_bound,
        bound=bound,
        first_fill=fill,
        fill=f"{fill} AND {after}",
        remaining=escape(f"SELECT count(*) FROM {rows} WHERE {words.due(image, words.found(own))}"),
        estimate=estimate,
        first_lock=f"{lock} {locked}" if locks else None,
        lock=f"{lock} AND {after} {locked}" if locks else None,
    )


def copy_probe(copy: Copy, product: str, compiler: Compiler) -> ProbeText:
    """The queries of a verification."""
    words = _Words(copy=copy, compiler=compiler, product=product)
    own = words.row(words.target)
    table = compiler.table(copy.table, copy.schema)
    alias = "" if product == "sqlite" else " AS cf_row"
    found = words.found(own)
    due = words.due(own(copy.image), found)
    rows = f"FROM {table}{alias} WHERE"
    image = own(copy.image)
    shown = ", ".join([*(own(name) for name in copy.key), own(copy.column), f"{found} AS cf_found"])
    return ProbeText(
        unsynced=escape(f"SELECT count(*) {rows} {due} AND {image} IS NULL"),
        differing=((copy.title, escape(f"SELECT count(*) {rows} {due} AND {image} IS NOT NULL")),),
        show=((copy.title, escape(f"SELECT {shown} {rows} {due}") + " LIMIT :limit"),),
        nulls={copy.column: escape(f"SELECT count(*) {rows} {own(copy.column)} IS NULL")} if copy.keeps else {},
    )


def copy_repair(copy: Copy, side: Side, product: str, compiler: Compiler, *, estimate: str) -> BackfillText:
    """The statements that mend rows of which the paths find something else than when they were last asked.

    From ``old``, the column takes what they find; from ``new``, it stays as it is, and counts as up to date.
    """
    words = _Words(copy=copy, compiler=compiler, product=product)
    found = _asked(words)
    value = found if side == "old" else words.row(words.target)(copy.column)
    return _walk(words, words.assigned(found, value), estimate)
