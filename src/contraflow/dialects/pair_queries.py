"""The sync between two tables, as queries: the backfill, the verification and the repair of a pair."""

from __future__ import annotations

from contraflow.dialects.base import BackfillText, ProbeText, escape
from contraflow.dialects.compiler import Compiler
from contraflow.dialects.data import beyond, bounds
from contraflow.dialects.pair_words import OTHER_REPAIR, REPAIR, PairWords
from contraflow.lens import Side
from contraflow.steps import Backfill
from contraflow.syncs import Pair, Sync

__all__ = ["pair_backfill", "pair_probe", "pair_repair", "pair_title"]


def pair_backfill(pair: Pair) -> Backfill:
    """The backfill of a pair: a change of the marker is all, the old table's triggers do the rest."""
    end = pair.old_table
    touched = Sync(
        table=end.table,
        schema=end.schema,
        key=tuple(column.name for column in end.key),
        key_types=tuple(column.type for column in end.key),
        columns={},
        groups=(),
        marker=pair.marker,
        name=end.name,
    )
    return Backfill(sync=touched)


def pair_probe(pair: Pair, compiler: Compiler) -> ProbeText:
    """The queries of a verification."""
    words = PairWords(pair=pair, compiler=compiler)
    source, where = _differing(words)
    keys = [f"m.{compiler.quote(column.name)}" for column in pair.main.key]
    values = [
        f"{alias}.{compiler.quote(name)} AS {compiler.quote(f'{end.table}.{name}')}"
        for alias, end in (("m", pair.main), ("c", pair.companion))
        for name in end.columns
    ]
    title = pair_title(pair)
    unsynced = f"SELECT count(*) FROM {words.table(pair.old_table)} WHERE {words.marker} IS NULL"
    looks = [(title, source, where, [*keys, *values])]
    if pair.rows:
        lone = f"{pair.companion.table} without {pair.main.table}"
        looks.append((lone, *_lone(words), [f"c.{compiler.quote(column.name)}" for column in pair.companion.key]))
    return ProbeText(
        unsynced=escape(unsynced),
        differing=tuple((name, escape(f"SELECT count(*) FROM {rows} WHERE {told}")) for name, rows, told, _ in looks),
        show=tuple(
            (name, escape(f"SELECT {', '.join(shown)} FROM {rows} WHERE {told}") + " LIMIT :limit")
            for name, rows, told, shown in looks
        ),
        nulls={},
    )


def _differing(words: PairWords) -> tuple[str, str]:
    """The two tables joined as m and c, and the condition under which they disagree."""
    pair, quote = words.pair, words.compiler.quote
    source = (
        f"{words.table(pair.main)} m LEFT JOIN {words.table(pair.companion)} c"
        f" ON {words.found(pair.companion, 'm', pair.main, 'c.')}"
    )
    missing = f"c.{quote(pair.companion.key[0].name)} IS NULL"
    agree = f"CASE WHEN {missing} THEN {words.empty('m')} ELSE {words.agree('m', 'c')} END"
    return source, f"NOT ({agree})"


def _lone(words: PairWords) -> tuple[str, str]:
    """The companion's rows, c, and the condition under which they have no main row."""
    main, companion = words.pair.main, words.pair.companion
    row = f"SELECT 1 FROM {words.table(main)} m WHERE {words.found(main, 'c', companion, 'm.')}"
    return f"{words.table(companion)} c", f"NOT EXISTS ({row})"


def pair_title(pair: Pair) -> str:
    """The pair in words."""
    sides = (f"{end.table}.({', '.join(end.columns)})" for end in (pair.old_table, pair.new_table))
    return " -> ".join(sides)


def pair_repair(pair: Pair, side: Side, product: str, compiler: Compiler, *, estimate: str) -> BackfillText:
    """The statements that make the other table agree with that of ``side`` where the two disagree.

    They walk over the main table, or, where whole rows are mended from the companion, over that: no row is deleted that
    only the other one has. ``remaining`` counts the rows that disagree; on MySQL and MariaDB, where a statement
    that reads the companion table could not have its triggers write it (error 1442), each row is asked by its trigger.
    """
    words = PairWords(pair=pair, compiler=compiler)
    quote, table = compiler.quote, words.table(pair.main)
    source, where = _differing(words)
    bare = quote(pair.main.table)
    row = f"SELECT 1 FROM {words.table(pair.companion)} c WHERE {words.found(pair.companion, bare, pair.main, 'c.')}"
    agree = f"CASE WHEN EXISTS ({row}) THEN EXISTS ({row} AND {words.agree(bare, 'c')}) ELSE {words.empty(bare)} END"
    push = f"{words.marker} = CASE WHEN {words.marker} = {REPAIR} THEN {OTHER_REPAIR} ELSE {REPAIR} END"
    end = pair.main
    if (side == "old") == (pair.old == "main"):
        update = f"UPDATE {table} SET {push} WHERE "
        disagree = "1 = 1" if product in ("mysql", "mariadb") else f"NOT ({agree})"
    elif pair.rows:
        end, table = pair.companion, words.table(pair.companion)
        here = quote(end.table)
        told = f"SELECT 1 FROM {words.table(pair.main)} m WHERE {words.found(pair.main, here, end, 'm.')}"
        missed = f"NOT EXISTS ({told} AND {words.agree('m', here)})"
        update = f"UPDATE {table} SET {push} WHERE "
        disagree = "1 = 1" if product in ("mysql", "mariadb") else missed
        source, where = table, missed
    else:
        values = {
            name: f"CASE WHEN EXISTS ({row}) THEN ({row.replace('SELECT 1', f'SELECT {image}', 1)}) ELSE {nothing} END"
            for (name, image), nothing in zip(
                words.images("main", "c").items(), words.images("main", None).values(), strict=True
            )
        }
        update = f"UPDATE {table} SET {words.assigned(values)} WHERE "
        disagree = f"NOT ({agree})"
    columns = [escape(quote(column.name)) for column in end.key]
    first_bound, bound = bounds(compiler, table, columns)
    fill = f"{escape(update + disagree)} AND {beyond(compiler, columns, '<=', 'u')}"
    return BackfillText(
        first_bound=first_bound,
        bound=bound,
        first_fill=fill,
        fill=f"{fill} AND {beyond(compiler, columns, '>', 'k')}",
        remaining=escape(f"SELECT count(*) FROM {source} WHERE {where}"),
        estimate=estimate,
    )
