"""Texts of the backfill and of the verification: alike on every server but for a few words."""

from __future__ import annotations

from collections.abc import Sequence

from contraflow.dialects.base import BackfillText, ProbeText, escape
from contraflow.dialects.compiler import Compiler
from contraflow.dialects.sync import TOUCHED, disagreement, forgotten
from contraflow.lens import Group
from contraflow.steps import Probe
from contraflow.syncs import Sync

__all__ = ["backfill_text", "beyond", "bounds", "escape", "probe_text"]


def backfill_text(
    sync: Sync,
    compiler: Compiler,
    *,
    limited: str,
    estimate: str,
    keep: Sequence[str] = (),
) -> BackfillText:
    """The statements of a backfill.

    ``limited`` is the condition, with ``{table}`` and ``{unsynced}`` (and ``:limit``), that picks the next rows of a
    table without a key. ``keep`` are columns assigned to themselves, because the server would change them by itself.
    """
    quote = compiler.quote
    table = compiler.table(sync.table, sync.schema)
    unsynced = f"{quote(sync.marker)} IS NULL"
    images = [
        f"{quote(name)} = {compiler.image(image, sync.columns[name], quote)}"
        for group in sync.groups
        for name, image in group.forward.items()
        if not sync.looks_up
    ]
    kept = [f"{quote(name)} = {quote(name)}" for name in keep]
    marked = f"{quote(sync.marker)} = {TOUCHED if sync.looks_up else 1}"
    update = f"UPDATE {table} SET {', '.join([*images, marked, *kept])} WHERE "
    remaining = escape(f"SELECT count(*) FROM {table} WHERE {unsynced}")
    if not sync.key:
        picked = limited.replace("{table}", escape(table)).replace("{unsynced}", escape(unsynced))
        fill = f"{escape(update)}{picked}"
        return BackfillText(
            first_bound=None, bound=None, first_fill=fill, fill=fill, remaining=remaining, estimate=estimate
        )
    columns = [escape(quote(name)) for name in sync.key]
    after = beyond(compiler, columns, ">", "k")
    upto = beyond(compiler, columns, "<=", "u")
    first_bound, bound = bounds(compiler, table, columns)
    fill = f"{escape(update)}{escape(unsynced)} AND {upto}"
    return BackfillText(
        first_bound=first_bound,
        bound=bound,
        first_fill=fill,
        fill=f"{fill} AND {after}",
        remaining=remaining,
        estimate=estimate,
    )


def bounds(compiler: Compiler, table: str, columns: Sequence[str]) -> tuple[str, str]:
    """The queries of the last key of the next ``:limit`` rows: from the start, and after ``:k0, :k1 ...``."""
    names = ", ".join(columns)
    carried = ", ".join(compiler.carried(f"contraflow_page.{column}") for column in columns)
    # Qualified: what is selected may be named like the column and be sorted otherwise.
    backwards = ", ".join(f"contraflow_page.{column} DESC" for column in columns)

    def bound(where: str) -> str:
        page = f"SELECT {names} FROM {escape(table)}{where} ORDER BY {names} LIMIT :limit"
        return f"SELECT {carried} FROM ({page}) AS contraflow_page ORDER BY {backwards} LIMIT 1"

    return bound(""), bound(f" WHERE {beyond(compiler, columns, '>', 'k')}")


def beyond(compiler: Compiler, columns: Sequence[str], sign: str, parameter: str) -> str:
    """``(a, b) > (:k0, :k1)``, in the form for which the server uses an index on (a, b).

    MySQL and MariaDB use none for a comparison of rows; written out, their optimisers make two ranges of it. PostgreSQL
    and SQLite would use the written-out form's first column only.
    """
    values = [f":{parameter}{place}" for place in range(len(columns))]
    if len(columns) == 1:
        return f"{columns[0]} {sign} {values[0]}"
    if compiler.compares_rows:
        return f"({', '.join(columns)}) {sign} ({', '.join(values)})"
    branches = []
    for place, column in enumerate(columns):
        equal = [f"{columns[earlier]} = {values[earlier]}" for earlier in range(place)]
        last = sign if place == len(columns) - 1 else sign[0]
        branches.append(f"({' AND '.join([*equal, f'{column} {last} {values[place]}'])})")
    return f"{columns[0]} {sign[0]}= {values[0]} AND ({' OR '.join(branches)})"


def probe_text(step: Probe, compiler: Compiler) -> ProbeText:
    """The queries of a verification."""
    sync = step.sync
    quote = compiler.quote
    table = compiler.table(sync.table, sync.schema)
    differing, show = [], []
    for group in sync.groups:
        title = _title(group)
        differs = f"({disagreement(sync, group, compiler)} OR {forgotten(sync, group, compiler)})"
        where = escape(f"{quote(sync.marker)} IS NOT NULL AND {differs}")
        names = ", ".join(escape(quote(name)) for name in dict.fromkeys((*sync.key, *group.old, *group.new)))
        differing.append((title, f"SELECT count(*) FROM {escape(table)} WHERE {where}"))
        show.append((title, f"SELECT {names} FROM {escape(table)} WHERE {where} LIMIT :limit"))
    count = f"SELECT count(*) FROM {table} WHERE"
    given = f" AND {quote(sync.marker)} IS NOT NULL" if sync.opaque is not None else ""
    return ProbeText(
        unsynced=escape(f"{count} {quote(sync.marker)} IS NULL"),
        differing=tuple(differing),
        show=tuple(show),
        # A row that is still to be computed in Python is told of as that.
        nulls={name: escape(f"{count} {quote(name)} IS NULL{given}") for name in step.not_null},
    )


def _title(group: Group) -> str:
    return f"{', '.join(group.old)} -> {', '.join(group.new)}"
