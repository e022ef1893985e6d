"""Texts that mend drift: where the two sides of a group disagree, one of them is written anew from the other."""

from __future__ import annotations

from contraflow.dialects.base import BackfillText
from contraflow.dialects.compiler import Compiler
from contraflow.dialects.data import beyond, bounds, escape
from contraflow.dialects.sync import disagreement
from contraflow.lens import Group, Side
from contraflow.syncs import Sync

__all__ = ["repair_text"]


def repair_text(sync: Sync, group: Group, side: Side, compiler: Compiler, *, estimate: str) -> BackfillText:
    """The statements that make ``group``'s other side the image of ``side`` in rows that disagree;
    ``remaining`` counts these.

    The statement changes the marker too, which is how the sync knows it for the engine's own. A table without
    a key is written in one statement; only rows that disagree are locked.
    """
    quote = compiler.quote
    table = compiler.table(sync.table, sync.schema)
    images = group.forward if side == "old" else group.backward
    marker = quote(sync.marker)
    assignments = [
        f"{quote(name)} = {compiler.image(image, sync.columns[name], quote)}"
        for name, image in images.items()
        if name not in group.once
    ]
    assignments.append(f"{marker} = CASE WHEN {marker} = 1 THEN 2 ELSE 1 END")
    where = f"{marker} IS NOT NULL AND {disagreement(sync, group, compiler)}"
    update = escape(f"UPDATE {table} SET {', '.join(assignments)} WHERE {where}")
    remaining = escape(f"SELECT count(*) FROM {table} WHERE {where}")
    if not sync.key:
        return BackfillText(
            first_bound=None, bound=None, first_fill=update, fill=update, remaining=remaining, estimate=estimate
        )
    columns = [escape(quote(name)) for name in sync.key]
    first_bound, bound = bounds(compiler, table, columns)
    upto = beyond(compiler, columns, "<=", "u")
    return BackfillText(
        first_bound=first_bound,
        bound=bound,
        first_fill=f"{update} AND {upto}",
        fill=f"{update} AND {upto} AND {beyond(compiler, columns, '>', 'k')}",
        remaining=remaining,
        estimate=estimate,
    )
