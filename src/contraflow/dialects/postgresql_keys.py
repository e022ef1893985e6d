"""Primary keys of PostgreSQL: one that is built beside the writers takes the place of another in one short hold.

A foreign key that refers to the old key depends on that very constraint, not only on its columns' being unique. So it
is dropped and made anew within the hold, NOT VALID: every row was checked by then, and every new one is from then on.
VALIDATE CONSTRAINT follows beside the writers (https://www.postgresql.org/docs/current/sql-altertable.html, ADD
table_constraint_using_index, VALIDATE CONSTRAINT).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from contraflow.dialects.base import BackfillText, Found, Statement, escape
from contraflow.dialects.comments import comment_on
from contraflow.dialects.compiler import Compiler, plain_literal
from contraflow.dialects.mend import mend_text
from contraflow.dialects.remaining import key_is_due
from contraflow.installed import Installed, Mend
from contraflow.problems import Problem
from contraflow.steps import ChangeKey, FillNulls, NumberColumn, ProveReferences

__all__ = ["cannot_be_remade", "change", "fill_numbers", "find", "number", "problems", "prove"]

_EXCLUSIVE = "ACCESS EXCLUSIVE"


def find(connection: sa.Connection, oid: int) -> dict[str, Any]:
    """The primary key's columns and name, and the foreign keys that refer to the table.

    Each of these has its ``table`` (quoted), ``name``, ``text`` (what stands behind its name), the ``columns`` it
    refers to, its ``comment``, whether it is ``valid``, whether it stands ``on_key`` (depends on the primary key),
    whether the table refers to ``itself``, and whether the table that refers is ``owned`` by this role or
    ``partitioned``.
    """
    names = "ARRAY(SELECT a.attname FROM unnest(c.{0}) WITH ORDINALITY AS k (attnum, place) JOIN pg_attribute a ON"
    names += " a.attrelid = c.{1} AND a.attnum = k.attnum ORDER BY k.place)"
    key = connection.execute(
        sa.text(
            f"SELECT c.conname, CAST({names.format('conkey', 'conrelid')} AS text[]), c.conindid"
            " FROM pg_constraint c WHERE c.conrelid = :oid AND c.contype = 'p'"
        ),
        {"oid": oid},
    ).first()
    references = connection.execute(
        sa.text(
            "SELECT CAST(CAST(c.conrelid AS regclass) AS text) AS table, c.conname AS name,"
            " pg_get_constraintdef(c.oid) AS text, c.convalidated AS valid,"
            f" CAST({names.format('confkey', 'confrelid')} AS text[]) AS columns, c.conindid = :index AS on_key,"
            " obj_description(c.oid, 'pg_constraint') AS comment, c.conrelid = c.confrelid AS itself,"
            " pg_has_role(r.relowner, 'USAGE') AS owned, r.relkind = 'p' AS partitioned"
            " FROM pg_constraint c JOIN pg_class r ON r.oid = c.conrelid"
            " WHERE c.confrelid = :oid AND c.contype = 'f' AND c.conparentid = 0"
            " ORDER BY 1, 2"
        ),
        {"oid": oid, "index": key[2] if key else None},
    ).mappings()
    return {
        "key": tuple(key[1]) if key else (),
        "key_name": str(key[0]) if key else None,
        "references": tuple({**row, "columns": tuple(row["columns"])} for row in references),
    }


def change(step: ChangeKey, found: Found | None, compiler: Compiler) -> list[Statement]:
    """The statements that put the new key, built as an index by then, into the place of the old one."""
    if not key_is_due(step, found):
        return []
    quote, key = compiler.quote, step.key
    table = compiler.table(step.table, step.schema)
    drop, add = [], []
    shown = key.old_name or ("<its name>" if key.old else None)
    standing = shown if found is None else found.details["key_name"]
    for one in () if found is None or standing is None else found.details["references"]:
        if not one["on_key"]:
            continue
        name = quote(one["name"])
        drop.append(_alter(one["table"], f"DROP CONSTRAINT {name}"))
        add.append(_alter(one["table"], f"ADD CONSTRAINT {name} {one['text'].removesuffix(' NOT VALID')} NOT VALID"))
        if one["comment"] is not None:
            add.append(comment_on("CONSTRAINT", f"{name} ON {one['table']}", one["comment"]))
    if standing is not None:
        drop.append(_alter(table, f"DROP CONSTRAINT {quote(standing)}"))
    if key.new:
        drop.append(_alter(table, f"ADD CONSTRAINT {quote(key.name)} PRIMARY KEY USING INDEX {quote(key.name)}"))
    return [*drop, *add]


def cannot_be_remade(references: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    """``CF202`` and ``CF111`` for tables that refer by a key which has to be made anew, and cannot be."""
    for table in dict.fromkeys(one["table"] for one in references if one["partitioned"]):
        yield Problem(
            code="CF111",
            what=f"{table}, which refers to the key, is partitioned.",
            why="its foreign key has to be made anew, and before PostgreSQL 18 none can be NOT VALID on such a table:"
            " the server would read all of its rows while writers wait.",
            instead="drop that foreign key in a revision before this one, and add it again in one after it.",
        )
    for table in dict.fromkeys(one["table"] for one in references if not one["owned"]):
        yield Problem(
            code="CF202",
            what=f"{table}, which refers to the key, belongs to another role.",
            why="its foreign key has to be made anew, and only the owner of the table may do that.",
            instead="connect as a role that owns both tables.",
        )


def _alter(table: str, what: str) -> Statement:
    return Statement(sql=f"ALTER TABLE {table} {what}", lock=_EXCLUSIVE)


_GRANTS = """\
DO $contraflow$
DECLARE given text;
BEGIN
  FOR given IN
    SELECT DISTINCT format('GRANT USAGE ON SEQUENCE {sequence} TO %s',
      CASE held.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(held.grantee)) END)
    FROM (
      SELECT acl.* FROM pg_class c, aclexplode(c.relacl) acl WHERE c.oid = to_regclass({table})
      UNION ALL
      SELECT acl.* FROM pg_attribute a, aclexplode(a.attacl) acl WHERE a.attrelid = to_regclass({table})
    ) held
    WHERE held.privilege_type = 'INSERT'
  LOOP
    EXECUTE given;
  END LOOP;
END
$contraflow$"""


def number(step: NumberColumn, found: Found | None, compiler: Compiler) -> list[Statement]:
    """The statements of a stage within a hold.

    The column's default draws from a sequence, given apart from the column so that no row is written. Whoever may
    insert rows may draw, as the server asks for with a sequence, and does not with an identity. That needs NOT NULL, so
    it comes last, and goes on where the sequence stands.
    """
    quote, one = compiler.quote, step.numbered
    table, sequence = (compiler.table(name, step.schema) for name in (step.table, one.sequence))
    column = quote(one.column)
    stands = found is not None and one.column in found.columns
    if step.stage == "undo":
        return [_alter(table, f"DROP COLUMN {column}")] if stands or found is None else []
    if step.stage == "end":
        if not one.identity or (found is not None and one.column not in found.details["default_texts"]):
            return []
        own = f"pg_get_serial_sequence({plain_literal(table)}, {plain_literal(one.column)})"
        return [
            Statement(sql=f"ALTER SEQUENCE {sequence} OWNED BY NONE"),
            _alter(table, f"ALTER COLUMN {column} DROP DEFAULT"),
            _alter(table, f"ALTER COLUMN {column} ADD GENERATED {one.identity} AS IDENTITY"),
            Statement(sql=f"SELECT setval({own}, nextval({plain_literal(sequence)}), false)"),
            Statement(sql=f"DROP SEQUENCE {sequence}"),
        ]
    if step.stage != "add" or stands or step.column is None:
        return []
    type_ = compiler.type_text(step.column.type)
    sent = [
        Statement(sql=f"CREATE SEQUENCE {sequence} AS {type_}"),
        _alter(table, f"ADD COLUMN {column} {type_}"),
        _alter(table, f"ALTER COLUMN {column} SET DEFAULT nextval({plain_literal(sequence)})"),
        Statement(sql=f"ALTER SEQUENCE {sequence} OWNED BY {table}.{column}"),
        Statement(
            sql=_GRANTS.format(sequence=plain_literal(sequence)[1:-1].replace("%", "%%"), table=plain_literal(table))
        ),
    ]
    if step.column.comment:
        sent.append(comment_on("COLUMN", f"{table}.{column}", step.column.comment))
    return sent


def fill_numbers(step: NumberColumn, compiler: Compiler, estimate: str) -> BackfillText:
    """The statements that number the rows from before the column was added."""
    table = compiler.table(step.table, step.schema)
    sequence = plain_literal(compiler.table(step.numbered.sequence, step.schema))
    mend = Mend(column=step.numbered.column, text=f"nextval({sequence})", key=step.key.old)
    text = mend_text(FillNulls(table=step.table, schema=step.schema, mend=mend), compiler)
    if step.key.old:
        return replace(text, estimate=estimate)
    missing = f"{compiler.quote(mend.column)} IS NULL"
    # A row that moved between the two parts is left for the next batch.
    picked = escape(f"ctid IN (SELECT ctid FROM {table} WHERE {missing} LIMIT ")
    fill = f"{text.fill} AND {picked}:limit)"
    return replace(text, estimate=estimate, first_fill=fill, fill=fill)


def prove(step: ProveReferences, found: Found | None, compiler: Compiler) -> list[Statement]:
    """The statements that prove the foreign keys which were made anew; those of others are none of ours."""
    lock = "SHARE UPDATE EXCLUSIVE (writers go on)"
    return [
        Statement(sql=f"ALTER TABLE {one['table']} VALIDATE CONSTRAINT {compiler.quote(one['name'])}", lock=lock)
        for one in (found.details["references"] if found else ())
        if not one["valid"] and tuple(one["columns"]) == step.columns
    ]


def problems(connection: sa.Connection, item: Installed, found: Found, name: str) -> Iterator[Problem]:
    """What would refuse the change at contract, or fail from then on; ``name`` is the table's, quoted."""
    key = item.key
    if key is None:
        return
    # Those to a key whose columns go are dropped before.
    remade = () if key.retires else found.details["references"]
    yield from cannot_be_remade([one for one in remade if tuple(one["columns"]) == key.old])
    for one in remade:
        if key.old and not one["valid"] and tuple(one["columns"]) == key.old:
            yield Problem(
                code="CF111",
                what=f"the foreign key {one['name']} of {one['table']} is not valid, and refers to the key of"
                f" {item.table}.",
                why="it is made anew with the other key, and then proven for all rows: those that violate it would be"
                " in the way.",
                instead=f"ALTER TABLE {one['table']} VALIDATE CONSTRAINT {one['name']};",
            )
    if key.old:
        readers = connection.execute(
            sa.text(
                "SELECT DISTINCT pg_describe_object(d.classid, d.objid, 0) FROM pg_depend d JOIN pg_constraint c"
                " ON c.oid = d.refobjid AND d.refclassid = CAST('pg_constraint' AS regclass)"
                " WHERE c.conrelid = to_regclass(:name) AND c.contype = 'p' AND d.deptype = 'n'"
                " AND d.classid <> CAST('pg_constraint' AS regclass) ORDER BY 1"
            ),
            {"name": name},
        ).scalars()
        for reader in readers:
            yield Problem(
                code="CF111",
                what=f"the primary key of {item.table} cannot be dropped: {reader} depends on it.",
                why="it groups by the key, and reads columns that the key determines.",
                instead="name these columns in its GROUP BY, in a revision before this one.",
            )
    if not key.new:
        published = connection.execute(
            sa.text(
                "SELECT p.pubname FROM pg_publication p, pg_class c WHERE c.oid = to_regclass(:name)"
                " AND c.relreplident = 'd' AND (p.pubupdate OR p.pubdelete) AND (p.puballtables OR EXISTS"
                " (SELECT 1 FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid)) ORDER BY 1"
            ),
            {"name": name},
        ).scalars()
        for publication in published:
            yield Problem(
                code="CF111",
                what=f"the primary key of {item.table} cannot be dropped: the publication {publication} replicates it.",
                why="without a key the server refuses every UPDATE and DELETE of a published table.",
                instead=f"ALTER TABLE {name} REPLICA IDENTITY FULL; or USING INDEX of a unique one;\nor let the change"
                " make another key: AddPrimaryKey(...).",
            )
