"""The sync between two tables, as trigger bodies and queries.

Which table a statement writes tells the direction. What must be told apart is the sync's own write to the other table,
which must not come back: it always changes the marker of the row it writes, which no application does. The values:

====  ==================================================================================================
NULL  in the old table: never synced, to be filled by the backfill; in the new one: as the application left it
1     synced; a change to it (the backfill's) pushes the row to the other table
2, 3  written by the sync; each of its writes changes one into the other
4, 5  a change to one of them (the repair's) pushes the row to the other table, unless the two agree
9     about to be deleted by the sync
====  ==================================================================================================

Every write to a synced column writes the other row too, changed or not: so two writers of the two rows wait for each
other, or one of them is a deadlock's victim. Asking first whether they agree would let both pass, and then differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from contraflow.dialects.compiler import Compiler
from contraflow.dialects.pair_words import GOING, OWN, SYNCED, On, PairWords, in_block
from contraflow.dialects.plpgsql import definer_function
from contraflow.dialects.sync import TriggerText
from contraflow.syncs import Pair, PairTable

__all__ = ["PREFIX", "is_own", "pair_trigger_names", "pair_triggers"]

PREFIX = "zcf_"
"""Names of a pair's triggers begin so: PostgreSQL fires in the order of names, and a main table's BEFORE DELETE must
come after the application's own, any of which may call the delete off."""


def is_own(name: str, own: str | None) -> bool:
    """Whether a trigger is a sync's, of the stem ``own``, or links two tables."""
    return name.startswith(PREFIX) or bool(own and name.startswith(own))


def pair_trigger_names(name: str) -> tuple[str, ...]:
    """The triggers that a table of a pair may carry, in the order in which they can be dropped one by one."""
    return tuple(f"{name}_{suffix}" for suffix in "bidu")


# --- triggers of blocks: PostgreSQL, MySQL, MariaDB -------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Blocks:
    """Trigger bodies with IF ... END IF."""

    words: PairWords
    upsert: Literal["on conflict", "on duplicate key"]

    def main_written(self) -> list[str]:
        """After an INSERT or UPDATE of the main row: its row in the companion table."""
        words, companion = self.words, self.words.pair.companion
        table, where = words.table(companion), words.found(companion, "NEW", words.pair.main)
        images = words.images("companion", "NEW")
        empty = words.empty("NEW")
        if words.deletes:
            emptied = self._delete("NEW")
        else:
            emptied = [f"UPDATE {table} SET {words.assigned(images)} WHERE {where};"]
        return [f"IF {empty} THEN", *in_block(emptied), "ELSE", *in_block(self._put(table, where, images)), "END IF;"]

    def _put(self, table: str, where: str, images: Mapping[str, str]) -> list[str]:
        words, companion = self.words, self.words.pair.companion
        quote = words.compiler.quote
        if not words.pair.follows:
            return [f"UPDATE {table} SET {words.assigned(images)} WHERE {where};"]
        keys = [column.name for column in companion.key]
        names = ", ".join([*map(quote, (*keys, *images)), words.marker])
        values = ", ".join([*(words.row("NEW", key.name) for key in words.pair.main.key), *images.values(), str(OWN)])
        if self.upsert == "on duplicate key":
            # One statement: a look of its own would be a snapshot's under REPEATABLE READ.
            return [
                f"INSERT INTO {table} ({names}) VALUES ({values})",
                f"  ON DUPLICATE KEY UPDATE {words.assigned(images)};",
            ]
        return [
            f"UPDATE {table} SET {words.assigned(images)} WHERE {where};",
            f"IF NOT FOUND AND {_stands(words, words.pair.main)} THEN",
            f"  INSERT INTO {table} AS cf_row ({names}) VALUES ({values})",
            (
                f"    ON CONFLICT ({', '.join(map(quote, keys))}) DO UPDATE"
                f" SET {words.assigned(images, f'cf_row.{words.marker}')};"
            ),
            "END IF;",
        ]

    def main_updated(self) -> list[str]:
        """After an UPDATE of the main row that is not the sync's own."""
        words, main, companion = self.words, self.words.pair.main, self.words.pair.companion
        lines: list[str] = []
        if words.pair.follows:
            moved = ", ".join(
                f"{words.compiler.quote(there.name)} = {words.row('NEW', here.name)}"
                for here, there in zip(main.key, companion.key, strict=True)
            )
            lines += [
                f"IF {words.changed(main.key)} THEN",
                (
                    f"  UPDATE {words.table(companion)} SET {moved}, {words.marker} = {words.own(words.marker)}"
                    f" WHERE {words.found(companion, 'OLD', main)};"
                ),
                "END IF;",
            ]
        pushed = f"NOT {words.same_marker}"
        found = f"SELECT 1 FROM {words.table(companion)} cf_row WHERE {words.found(companion, 'NEW', main, 'cf_row.')}"
        agreed = (
            f"(EXISTS ({found} AND {words.agree('NEW', 'cf_row')}) OR ({words.empty('NEW')} AND NOT EXISTS ({found})))"
        )
        return [
            *lines,
            f"IF {words.changed(tuple(main.columns.values()))} OR {pushed} THEN",
            f"  IF {pushed} AND {words.repaired} AND {agreed} THEN",
            *in_block(self.nothing(), 2),
            "  ELSE",
            *in_block(self.main_written(), 2),
            "  END IF;",
            "END IF;",
        ]

    def nothing(self) -> list[str]:
        return ["NULL;"] if self.upsert == "on conflict" else ["BEGIN END;"]

    def _delete(self, row: str) -> list[str]:
        words, companion = self.words, self.words.pair.companion
        table, where = words.table(companion), words.found(companion, row, words.pair.main)
        return [
            f"UPDATE {table} SET {words.marker} = {GOING} WHERE {where};",
            f"DELETE FROM {table} WHERE {where};",
        ]

    def main_deleted(self) -> list[str]:
        """Before a main row is deleted: its row in the companion table goes first, as a foreign key may want it."""
        return self._delete("OLD")

    def companion_written(self) -> list[str]:
        """After an INSERT or UPDATE of the companion's row: the main row."""
        words = self.words
        main = words.pair.main
        return [
            (
                f"UPDATE {words.table(main)} SET {words.assigned(words.images('main', 'NEW'))}"
                f" WHERE {words.found(main, 'NEW', words.pair.companion)};"
            )
        ]

    def companion_updated(self) -> list[str]:
        """After an UPDATE of the companion's row that is not the sync's own."""
        words = self.words
        main, companion = words.pair.main, words.pair.companion
        table = words.table(main)
        # A foreign key that follows a changed key comes by here, too: then the two rows agree.
        prefix = "cf_row." if self.upsert == "on conflict" else ""
        alias = " AS cf_row" if prefix else ""
        target = "cf_row" if prefix else words.compiler.quote(main.table)
        moved = (
            f"UPDATE {table}{alias} SET {words.assigned(words.images('main', 'NEW'), f'{target}.{words.marker}')}"
            f" WHERE {words.found(main, 'NEW', companion, f'{target}.')} AND NOT {words.agree(target, 'NEW')};"
        )
        return [
            f"IF {words.changed(companion.key)} THEN",
            *in_block([*self.companion_deleted(), moved]),
            "END IF;",
            f"IF {words.changed(tuple(companion.columns.values()))} OR NOT {words.same_marker} THEN",
            *in_block(self.companion_written()),
            "END IF;",
        ]

    def companion_deleted(self) -> list[str]:
        """After the companion's row is gone (from its key): the main row holds what it holds without one."""
        words = self.words
        main = words.pair.main
        return [
            (
                f"UPDATE {words.table(main)} SET {words.assigned(words.images('main', None))}"
                f" WHERE {words.found(main, 'OLD', words.pair.companion)};"
            )
        ]


@dataclass(frozen=True, kw_only=True)
class _RowBlocks(_Blocks):
    """Where the companion's rows are rows of the main table, which come and go with them in both directions."""

    def _put(self, table: str, where: str, images: Mapping[str, str]) -> list[str]:  # noqa: ARG002 - told by the pair
        return self._upsert(self.words.pair.companion, self.words.pair.main, images)

    def _upsert(self, end: PairTable, other: PairTable, images: Mapping[str, str]) -> list[str]:
        """Write the row of ``end`` that belongs to NEW. Only the key tells which: another unique one must fail."""
        words, quote = self.words, self.words.compiler.quote
        table, keys = words.table(end), [column.name for column in end.key]
        update = f"UPDATE {table} SET {words.assigned(images)} WHERE {words.found(end, 'NEW', other)};"
        names, values = _row_values(words, end, other, images)
        if self.upsert == "on duplicate key":
            # An own write changes each row that it finds: its marker.
            insert = f"INSERT INTO {table} ({names}) VALUES ({values});"
            return [update, "IF ROW_COUNT() = 0 THEN", f"  {insert}", "END IF;"]
        return [
            update,
            f"IF NOT FOUND AND {_stands(words, other)} THEN",
            f"  INSERT INTO {table} AS cf_row ({names}) VALUES ({values})",
            (
                f"    ON CONFLICT ({', '.join(map(quote, keys))}) DO UPDATE"
                f" SET {words.assigned(images, f'cf_row.{words.marker}')};"
            ),
            "END IF;",
        ]

    def companion_written(self) -> list[str]:
        return self._upsert(self.words.pair.main, self.words.pair.companion, self.words.images("main", "NEW"))

    def companion_updated(self) -> list[str]:
        words = self.words
        main, companion = words.pair.main, words.pair.companion
        found = words.found(main, "NEW", companion, "cf_row.")
        agreed = f"EXISTS (SELECT 1 FROM {words.table(main)} cf_row WHERE {found} AND {words.agree('cf_row', 'NEW')})"
        pushed = f"NOT {words.same_marker}"
        return [
            f"IF {words.changed(companion.key)} THEN",
            f"  {_rekeyed(words)};",
            "END IF;",
            f"IF {words.changed(tuple(companion.columns.values()))} OR {pushed} THEN",
            f"  IF {pushed} AND {words.repaired} AND {agreed} THEN",
            *in_block(self.nothing(), 2),
            "  ELSE",
            *in_block(self.companion_written(), 2),
            "  END IF;",
            "END IF;",
        ]

    def companion_deleted(self) -> list[str]:
        return _gone_from_main(self.words)


def _row_values(words: PairWords, end: PairTable, other: PairTable, images: Mapping[str, str]) -> tuple[str, str]:
    """The columns of a row of ``end`` that is made by the sync, and their values, from NEW."""
    names = [*(key.name for key in end.key), *images]
    values = [*(words.row("NEW", key.name) for key in other.key), *images.values(), str(OWN)]
    return ", ".join([*map(words.compiler.quote, names), words.marker]), ", ".join(values)


def _rekeyed(words: PairWords) -> str:
    """The main row of a companion's row gets its new key."""
    main, companion = words.pair.main, words.pair.companion
    keys = {here.name: words.row("NEW", there.name) for here, there in zip(main.key, companion.key, strict=True)}
    where = f"{words.found(main, 'OLD', companion)} AND {words.within(words.compiler.quote)}"
    return f"UPDATE {words.table(main)} SET {words.assigned(keys)} WHERE {where}"


def _gone_from_main(words: PairWords) -> list[str]:
    """The main row goes with the companion's, if it is still one of these: it may have changed sides."""
    main = words.pair.main
    table, where = words.table(main), words.found(main, "OLD", words.pair.companion)
    return [
        f"UPDATE {table} SET {words.marker} = {GOING} WHERE {where} AND {words.within(words.compiler.quote)};",
        f"DELETE FROM {table} WHERE {where} AND {words.marker} = {GOING};",
    ]


def _blocks(words: PairWords, upsert: Literal["on conflict", "on duplicate key"]) -> _Blocks:
    return (_RowBlocks if words.pair.rows else _Blocks)(words=words, upsert=upsert)


def _stands(words: PairWords, end: PairTable) -> str:
    """Whether NEW, a row of the table, is there still.

    Triggers on what a foreign key's action changed come last: by then another key's action may have deleted the row.
    """
    own = " AND ".join(f"{words.row('cf_own', key.name)} = {words.row('NEW', key.name)}" for key in end.key)
    return f"EXISTS (SELECT 1 FROM {words.table(end)} cf_own WHERE {own})"


def _functions(words: PairWords, on: On, blocks: _Blocks) -> dict[str, list[str]]:
    """What each event of a table does."""
    if on == "main":
        events = {"i": blocks.main_written(), "u": blocks.main_updated()}
        return {**events, "d": blocks.main_deleted()} if words.pair.follows else events
    return {"i": blocks.companion_written(), "u": blocks.companion_updated(), "d": blocks.companion_deleted()}


def _postgresql(words: PairWords, on: On) -> list[TriggerText]:
    pair, end, quote = words.pair, words.end(on), words.compiler.quote
    events = _functions(words, on, _blocks(words, "on conflict"))
    marks = end is pair.old_table and pair.marks
    body = ["BEGIN", f"  /* contraflow {pair.fingerprint} */"]
    if marks:
        body += ["  IF TG_WHEN = 'BEFORE' AND TG_OP = 'INSERT' THEN", f"    NEW.{words.marker} := {SYNCED};"]
        body += ["    RETURN NEW;", "  END IF;"]
    for letter, event in (("i", "INSERT"), ("u", "UPDATE"), ("d", "DELETE")):
        if letter in events:
            body += [f"  IF TG_OP = '{event}' THEN", *in_block(events[letter], 2), "  END IF;"]
    body += ["  IF TG_OP = 'DELETE' THEN", "    RETURN OLD;", "  END IF;", "  RETURN NULL;", "END"]
    schema = end.schema or words.default_schema
    function = words.compiler.table(end.name, schema)
    create = definer_function(words.compiler, end.name, schema, body)
    early = on == "main" and not pair.rows
    deleted = "" if early else f"WHEN (OLD.{words.marker} IS DISTINCT FROM {GOING}) "
    shapes = {
        "u": ("AFTER UPDATE", f"WHEN ({words.updated(on)}) "),
        "d": ("BEFORE DELETE" if early else "AFTER DELETE", deleted),
        "i": ("AFTER INSERT", f"WHEN ({words.inserted()}) "),
        **({"b": ("BEFORE INSERT", f"WHEN (NEW.{words.marker} IS NULL) ")} if marks else {}),
    }
    table = words.compiler.table(end.table, schema)
    return [
        TriggerText(
            name=f"{end.name}_{letter}",
            event=event.split()[1].lower(),
            create=f"CREATE TRIGGER {quote(f'{end.name}_{letter}')} {event} ON {table}"
            f" FOR EACH ROW {when}EXECUTE FUNCTION {function}()",
            function=create,
        )
        for letter, (event, when) in shapes.items()
        if letter in events or letter == "b"
    ]


def _mysql(words: PairWords, on: On) -> list[TriggerText]:
    pair, end = words.pair, words.end(on)
    events = _functions(words, on, _blocks(words, "on duplicate key"))
    early = on == "main" and not pair.rows
    shapes = {
        "u": ("AFTER UPDATE", words.updated(on)),
        "d": ("BEFORE DELETE", "") if early else ("AFTER DELETE", f"NOT (OLD.{words.marker} <=> {GOING})"),
        "i": ("AFTER INSERT", words.inserted()),
    }
    texts = []
    for letter, (event, when) in shapes.items():
        if letter not in events:
            continue
        body = [f"IF {when} THEN", *in_block(events[letter]), "END IF;"] if when else events[letter]
        texts.append(_mysql_trigger(words, end, letter, event, body))
    if end is pair.old_table and pair.marks:
        # Last: a row that it marks must have the others'.
        marking = [f"SET NEW.{words.marker} = COALESCE(NEW.{words.marker}, {SYNCED});"]
        texts.append(_mysql_trigger(words, end, "b", "BEFORE INSERT", marking))
    return texts


def _mysql_trigger(words: PairWords, end: PairTable, letter: str, event: str, body: Sequence[str]) -> TriggerText:
    name = words.compiler.table(f"{end.name}_{letter}", end.schema)
    comment = f"/* contraflow {words.pair.fingerprint} */"
    opening = f"CREATE TRIGGER {name} {event} ON {words.table(end)} FOR EACH ROW BEGIN {comment}"
    return TriggerText(
        name=f"{end.name}_{letter}",
        event=event.split()[1].lower(),
        create="\n".join([opening, *in_block(body), "END"]),
    )


# --- triggers without blocks: SQLite ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Statements:
    """Trigger bodies of plain statements, each with its condition in WHERE. One writer at a time: a look is enough."""

    words: PairWords

    def main_updated(self) -> list[str]:
        words, main, companion = self.words, self.words.pair.main, self.words.pair.companion
        quote, table = words.compiler.quote, words.compiler.quote(companion.table)
        where, empty = words.found(companion, "NEW", main), words.empty("NEW")
        acting = f"({words.changed(tuple(main.columns.values()))} OR NOT {words.same_marker})"
        repaired = f"(NOT {words.same_marker} AND {words.repaired} AND {words.agree('NEW', table)})"
        images = words.images("companion", "NEW")
        lines = []
        if words.pair.follows:
            moved = ", ".join(
                f"{quote(there.name)} = {words.row('NEW', here.name)}"
                for here, there in zip(main.key, companion.key, strict=True)
            )
            lines.append(
                f"UPDATE {table} SET {moved}, {words.marker} = {words.own(words.marker)}"
                f" WHERE {words.found(companion, 'OLD', main)} AND {words.changed(main.key)};"
            )
        written = f"UPDATE {table} SET {words.assigned(images)} WHERE {where} AND {acting} AND NOT {repaired}"
        if words.deletes:
            lines += [
                (
                    f"UPDATE {table} SET {words.marker} = {GOING}"
                    f" WHERE {where} AND {acting} AND {empty} AND NOT {repaired};"
                ),
                f"DELETE FROM {table} WHERE {where} AND {words.marker} = {GOING};",
                f"{written} AND NOT {empty};",
            ]
        else:
            lines.append(f"{written};")
        if words.pair.follows:
            keys = [column.name for column in companion.key]
            names = ", ".join([*map(quote, (*keys, *images)), words.marker])
            values = ", ".join([*(words.row("NEW", key.name) for key in main.key), *images.values(), str(OWN)])
            lines.append(
                f"INSERT INTO {table} ({names}) SELECT {values} WHERE {acting} AND NOT {empty}"
                f" AND NOT EXISTS (SELECT 1 FROM {table} WHERE {where});"
            )
        return lines

    def main_deleted(self) -> list[str]:
        return _Blocks(words=self.words, upsert="on conflict").main_deleted()

    def companion_updated(self) -> list[str]:
        words, main, companion = self.words, self.words.pair.main, self.words.pair.companion
        table, moved = words.compiler.quote(main.table), words.changed(companion.key)
        image = f"UPDATE {table} SET {words.assigned(words.images('main', 'NEW'))} WHERE"
        here = words.found(main, "NEW", companion)
        acting = f"({words.changed(tuple(companion.columns.values()))} OR NOT {words.same_marker})"
        return [
            (
                f"UPDATE {table} SET {words.assigned(words.images('main', None))}"
                f" WHERE {words.found(main, 'OLD', companion)} AND {moved};"
            ),
            f"{image} {here} AND {moved} AND NOT {words.agree(table, 'NEW')};",
            f"{image} {here} AND {acting};",
        ]

    def companion_deleted(self) -> list[str]:
        return _Blocks(words=self.words, upsert="on conflict").companion_deleted()


@dataclass(frozen=True, kw_only=True)
class _RowStatements(_Statements):
    """See :class:`_RowBlocks`."""

    def companion_updated(self) -> list[str]:
        words = self.words
        main, companion = words.pair.main, words.pair.companion
        table, images = words.compiler.quote(main.table), words.images("main", "NEW")
        here = words.found(main, "NEW", companion)
        acting = f"({words.changed(tuple(companion.columns.values()))} OR NOT {words.same_marker})"
        repaired = f"(NOT {words.same_marker} AND {words.repaired} AND {words.agree(table, 'NEW')})"
        names, values = _row_values(words, main, companion, images)
        return [
            f"{_rekeyed(words)} AND {words.changed(companion.key)};",
            f"UPDATE {table} SET {words.assigned(images)} WHERE {here} AND {acting} AND NOT {repaired};",
            (
                f"INSERT INTO {table} ({names}) SELECT {values} WHERE {acting}"
                f" AND NOT EXISTS (SELECT 1 FROM {table} WHERE {here});"
            ),
        ]

    def companion_deleted(self) -> list[str]:
        return _gone_from_main(self.words)


def _made_unmarked(words: PairWords) -> list[str]:
    """A row of the companion for a new main row, which another pair marks: that pushes it to both of them."""
    main, companion = words.pair.main, words.pair.companion
    table, where = words.compiler.quote(companion.table), words.found(companion, "NEW", main)
    names, values = _row_values(words, companion, main, words.images("companion", "NEW"))
    return [
        (
            f"INSERT INTO {table} ({names}) SELECT {values} WHERE NOT {words.empty('NEW')}"
            f" AND NOT EXISTS (SELECT 1 FROM {table} WHERE {where});"
        )
    ]


def _sqlite(words: PairWords, on: On, *, without_rowid: bool) -> list[TriggerText]:
    end = words.end(on)
    quote, table = words.compiler.quote, words.compiler.quote(end.table)
    statements = (_RowStatements if words.pair.rows else _Statements)(words=words)
    self_keys = [quote(column.name) for column in end.key] if without_rowid else ["_rowid_"]
    own = " AND ".join(f"{key} IS NEW.{key}" for key in self_keys)
    # Only UPDATE of the marker: the UPDATE trigger then takes the row for pushed.
    marking = [f"UPDATE {table} SET {words.marker} = {SYNCED} WHERE {own};"]
    shapes: dict[str, tuple[str, str, list[str]]] = {
        "u": (
            "AFTER UPDATE",
            f"WHEN {words.updated(on)} ",
            statements.main_updated() if on == "main" else statements.companion_updated(),
        ),
        "i": ("AFTER INSERT", f"WHEN NEW.{words.marker} IS NULL ", marking),
    }
    if not words.pair.marks and end is words.pair.old_table:
        shapes["i"] = ("AFTER INSERT", f"WHEN {words.inserted()} ", _made_unmarked(words))
    if on == "companion" or words.pair.rows:
        gone = statements.companion_deleted() if on == "companion" else statements.main_deleted()
        shapes["d"] = ("AFTER DELETE", f"WHEN OLD.{words.marker} IS NOT {GOING} ", gone)
    elif words.pair.follows:
        shapes["d"] = ("BEFORE DELETE", "", statements.main_deleted())
    texts = []
    for letter, (event, when, body) in shapes.items():
        name = words.compiler.table(f"{end.name}_{letter}", end.schema)
        opening = f"CREATE TRIGGER {name} {event} ON {table} FOR EACH ROW {when}BEGIN"
        comment = f"/* contraflow {words.pair.fingerprint} */"
        texts.append(
            TriggerText(
                name=f"{end.name}_{letter}",
                event=event.split()[1].lower(),
                create="\n".join([f"{opening} {comment}", *in_block(body), "END"]),
            )
        )
    return texts


# --- the surface ------------------------------------------------------------------------------------------------------


def pair_triggers(
    pair: Pair,
    on: On,
    product: str,
    compiler: Compiler,
    *,
    default_schema: str | None = None,
    without_rowid: bool = False,
) -> list[TriggerText]:
    """The triggers of a pair on one of its tables, in an order of which every prefix is harmless.

    ``default_schema`` is where PostgreSQL finds tables without a schema. ``without_rowid`` says that an SQLite table
    has none.
    """
    words = PairWords(pair=pair, compiler=compiler, default_schema=default_schema)
    if product == "sqlite":
        return _sqlite(words, on, without_rowid=without_rowid)
    if product in ("mysql", "mariadb"):
        return _mysql(words, on)
    return _postgresql(words, on)
