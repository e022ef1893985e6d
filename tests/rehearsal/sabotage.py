"""Ways to spoil a live upgrade, each on a table of its own, so that one rehearsal shows which of them it notices.

Every spoiler is an SQL statement or two, done to the database behind the rehearsal's back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from contraflow.engine.runner import Runner
from tests.alembic.project import Project

CHECK = "checking every row before contract"
END = "new release alone"
MARKED = "cf_marker = CASE cf_marker WHEN 1 THEN 2 ELSE 1 END"
"""With this in it, an UPDATE is taken for the sync's own, and nothing follows it."""
APART = "(display_name <> fullname OR (display_name IS NULL) <> (fullname IS NULL))"


@dataclass(frozen=True, kw_only=True)
class Spoiler:
    """One sabotage.

    :ivar kinds: what it may be found as; for one in the schema, at the end.
    :ivar spoil: does it to the table of this name.
    :ivar phase: when.
    :ivar felt: what is true of a row once it has had an effect; the rehearsal is held until there are some.
    """

    name: str
    kinds: tuple[str, ...]
    spoil: Callable[[sa.Connection, str], None]
    phase: str = "both releases"
    felt: str | None = None

    @property
    def table(self) -> str:
        """Its table."""
        return self.name.replace(" ", "_")


def sql(*statements: str) -> Callable[[sa.Connection, str], None]:
    """Do these statements; ``{t}`` is the table."""

    def spoil(connection: sa.Connection, table: str) -> None:
        for statement in statements:
            connection.exec_driver_sql(statement.format(t=table))

    return spoil


def drop_triggers(*events: str) -> Callable[[sa.Connection, str], None]:
    """Drop the sync's triggers of these events, ``i`` or ``u``."""

    def spoil(connection: sa.Connection, table: str) -> None:
        with Runner(connection.engine) as runner:
            names = [name for name in runner.adapter.find(connection, table, None).triggers if name[-1] in events]
        assert len(names) == len(events)
        for name in names:
            on = f" ON {table}" if connection.dialect.name == "postgresql" else ""
            connection.exec_driver_sql(f"DROP TRIGGER {name}{on}")

    return spoil


def drop_pair_triggers(suffix: str = "") -> Callable[[sa.Connection, str], None]:
    """Drop those that keep another table in step with this one, or with its companion."""

    def spoil(connection: sa.Connection, table: str) -> None:
        name = f"{table}{suffix}"
        with Runner(connection.engine) as runner:
            triggers = runner.adapter.find(connection, name, None).triggers
        assert triggers
        for each in triggers:
            on = f" ON {name}" if connection.dialect.name == "postgresql" else ""
            connection.exec_driver_sql(f"DROP TRIGGER {each}{on}")

    return spoil


def trigger(event: str, column: str, value: str) -> Callable[[sa.Connection, str], None]:
    """Install one more trigger, which sets a column of every row that is inserted or updated."""

    def spoil(connection: sa.Connection, table: str) -> None:
        dialect = connection.dialect.name
        if dialect == "postgresql":
            connection.exec_driver_sql(
                f"CREATE FUNCTION zz_{table}() RETURNS trigger LANGUAGE plpgsql AS"
                f" $$ BEGIN NEW.{column} := {value}; RETURN NEW; END $$"
            )
            what = f"BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION zz_{table}()"
        elif dialect == "sqlite":
            update = f"UPDATE {table} SET {column} = {value}, {MARKED} WHERE id = NEW.id"
            # Its own update fires it once more where recursive triggers are on; the condition ends that.
            what = f"AFTER {event} ON {table} WHEN NEW.{column} IS NOT {value} BEGIN {update}; END"
        else:
            what = f"BEFORE {event} ON {table} FOR EACH ROW SET NEW.{column} = {value}"
        connection.exec_driver_sql(f"CREATE TRIGGER zz_{table} {what}")

    return spoil


REMEMBERED = "(SELECT number FROM zz_remembered WHERE zz_remembered.id = {t}.id)"


def remember(connection: sa.Connection, table: str) -> None:
    """Keep what every row holds now, for `take_back`."""
    connection.exec_driver_sql(f"CREATE TABLE zz_remembered AS SELECT id, number FROM {table}")


def take_back(connection: sa.Connection, table: str) -> None:
    """Undo every update of a row since `remember`, and leave no trace."""
    then = REMEMBERED.format(t=table)
    connection.exec_driver_sql(f"UPDATE {table} SET number = {then} WHERE id IN (SELECT id FROM zz_remembered)")
    connection.exec_driver_sql("DROP TABLE zz_remembered")


WRONG = ("alien read", "differs")
DATA: Sequence[Spoiler] = (
    Spoiler(name="triggers dropped", kinds=WRONG, spoil=drop_triggers("i", "u"), felt=APART),
    Spoiler(name="insert trigger dropped", kinds=WRONG, spoil=drop_triggers("i"), felt=APART),
    Spoiler(name="update trigger dropped", kinds=WRONG, spoil=drop_triggers("u"), felt=APART),
    Spoiler(
        name="wrong forward", kinds=WRONG, spoil=trigger("UPDATE", "display_name", "'no'"), felt="display_name = 'no'"
    ),
    Spoiler(name="wrong backward", kinds=WRONG, spoil=trigger("UPDATE", "fullname", "'no'"), felt="fullname = 'no'"),
    Spoiler(name="insert altered", kinds=WRONG, spoil=trigger("INSERT", "number", "-7"), felt="number = -7"),
    Spoiler(name="update altered", kinds=WRONG, spoil=trigger("UPDATE", "number", "-7"), felt="number = -7"),
    Spoiler(name="update taken back", kinds=WRONG, spoil=remember, felt=f"{REMEMBERED} <> {{t}}.number"),
    Spoiler(
        name="lying backfill",
        kinds=WRONG,
        spoil=sql(f"UPDATE {{t}} SET display_name = 'a lie', {MARKED}"),
        phase=CHECK,
    ),
    Spoiler(
        name="old side altered",
        kinds=WRONG,
        spoil=sql(f"UPDATE {{t}} SET fullname = 'altered', {MARKED}"),
        phase=CHECK,
    ),
    Spoiler(
        name="value set to null",
        kinds=WRONG,
        spoil=sql(f"UPDATE {{t}} SET display_name = NULL, {MARKED}"),
        phase=CHECK,
    ),
    Spoiler(
        name="row dropped",
        kinds=("lost",),
        spoil=sql("DELETE FROM {t} WHERE id = (SELECT id FROM (SELECT min(id) AS id FROM {t}) AS one)"),
        phase=CHECK,
    ),
    Spoiler(
        name="row doubled",
        kinds=("doubled",),
        spoil=sql("INSERT INTO {t} (id, fullname, number) SELECT id + 900000, fullname, number FROM {t}"),
        phase=CHECK,
    ),
)
"""What spoils rows. Contract refuses to go on with most of it, so what spoils the end is tried apart."""

PAIR_MARKED = "cf_pair = CASE cf_pair WHEN 2 THEN 3 ELSE 2 END"
PAIR_APART = "number <> (SELECT number FROM {t}_more WHERE {t}_more.id = {t}.id)"
TORN = (*WRONG, "lost", "doubled")
PAIRS: Sequence[Spoiler] = (
    Spoiler(name="main triggers dropped", kinds=TORN, spoil=drop_pair_triggers(), felt=PAIR_APART),
    Spoiler(name="companion triggers dropped", kinds=TORN, spoil=drop_pair_triggers("_more"), felt=PAIR_APART),
    Spoiler(
        name="companion altered",
        kinds=WRONG,
        spoil=sql(f"UPDATE {{t}}_more SET number = -7, {PAIR_MARKED}"),
        phase=CHECK,
    ),
    Spoiler(name="main altered", kinds=WRONG, spoil=sql(f"UPDATE {{t}} SET number = -7, {PAIR_MARKED}"), phase=CHECK),
    Spoiler(
        name="companion dropped",
        kinds=("lost",),
        spoil=sql("UPDATE {t}_more SET cf_pair = 9", "DELETE FROM {t}_more"),
        phase=CHECK,
    ),
)
"""What spoils two tables that are kept in step: ``number`` moves from ``{t}`` to ``{t}_more``."""

ASTRAY = "to_id IS NULL OR fullname <> (SELECT fullname FROM {t}_to WHERE {t}_to.id = {t}.to_id)"
UNHEARD = "{image} IS NULL AND EXISTS (SELECT 1 FROM {t}_of WHERE {t}_of.good = {t}.id AND {t}_of.number IS NOT NULL)"
REFERRING: Sequence[Spoiler] = (
    Spoiler(name="referring triggers dropped", kinds=TORN, spoil=drop_triggers("i", "u"), felt=ASTRAY),
    Spoiler(name="referred triggers dropped", kinds=TORN, spoil=drop_pair_triggers("_to"), felt=ASTRAY),
    Spoiler(
        name="reference altered",
        kinds=WRONG,
        spoil=sql(
            "UPDATE {t} SET to_id = (SELECT min(id) FROM {t}_to),"
            f" fullname = (SELECT fullname FROM {{t}}_to WHERE id = (SELECT min(id) FROM {{t}}_to)), {MARKED}"
        ),
        phase=CHECK,
    ),
)
"""What spoils rows of ``{t}`` that refer to rows of ``{t}_to``: by ``fullname`` before, by ``to_id`` after."""
COPYING: Sequence[Spoiler] = (
    Spoiler(name="source triggers dropped", kinds=WRONG, spoil=drop_pair_triggers("_of"), felt=UNHEARD),
    Spoiler(name="copy altered", kinds=WRONG, spoil=sql("UPDATE {t} SET copied = -7"), phase=CHECK),
)
"""What spoils a column of ``{t}`` that is copied from rows of ``{t}_of``."""
HALVES: Sequence[Spoiler] = (
    Spoiler(name="whole triggers dropped", kinds=TORN, spoil=drop_pair_triggers(), felt=PAIR_APART),
    Spoiler(name="part triggers dropped", kinds=TORN, spoil=drop_pair_triggers("_more"), felt=PAIR_APART),
    Spoiler(
        name="part altered",
        kinds=WRONG,
        spoil=sql(f"UPDATE {{t}}_more SET number = -7, {PAIR_MARKED}"),
        phase=CHECK,
    ),
)
"""What spoils rows of ``{t}`` that the new release has in ``{t}_more``."""
ASTRAY_BY = "(SELECT count(*) FROM {t}_by WHERE good = {t}.id AND (good_uid IS NULL OR good_uid <> {t}.uid)) > 0"
LONELY = "SELECT max(id) AS id FROM {t} WHERE id NOT IN (SELECT good FROM {t}_by)"
REKEYED: Sequence[Spoiler] = (
    Spoiler(name="key trigger dropped", kinds=WRONG, spoil=drop_triggers("i"), felt="uid IS NULL"),
    Spoiler(name="keyed triggers dropped", kinds=TORN, spoil=drop_pair_triggers("_by"), felt=ASTRAY_BY),
    Spoiler(
        name="keyed reference altered",
        kinds=WRONG,
        spoil=sql(f"UPDATE {{t}}_by SET good_uid = (SELECT uid FROM {{t}} ORDER BY uid LIMIT 1), {MARKED}"),
        phase=CHECK,
    ),
    Spoiler(
        name="key altered",
        kinds=TORN,
        spoil=sql(f"UPDATE {{t}} SET uid = '{'f' * 32}', {MARKED} WHERE id = (SELECT id FROM ({LONELY}) AS one)"),
        phase=CHECK,
    ),
)
"""What spoils rows of ``{t}`` and of ``{t}_by``, which refers to them: by ``id`` and ``good`` before, by ``uid`` and
``good_uid`` after."""
NUMBERED: Sequence[Spoiler] = (
    Spoiler(name="number altered", kinds=WRONG, spoil=sql("UPDATE {t} SET serial = serial + 1000000"), phase=CHECK),
)
"""What spoils rows of ``{t}`` that the server numbers for the new release."""
RELATED: Sequence[Spoiler] = (*REFERRING, *COPYING, *HALVES, *REKEYED, *NUMBERED)

SCHEMA: Sequence[Spoiler] = (
    Spoiler(name="index left behind", kinds=("structure",), spoil=sql("CREATE INDEX stray ON {t} (number)"), phase=END),
    Spoiler(
        name="column left behind",
        kinds=("structure",),
        spoil=sql("ALTER TABLE {t} ADD COLUMN fullname VARCHAR(100)"),
        phase=END,
    ),
    Spoiler(name="trigger left behind", kinds=("structure",), spoil=trigger("UPDATE", "number", "number"), phase=END),
)
"""What spoils the schema that contract leaves."""

UNSPOILT = ("unspoilt", "unspoilt_too")
"""Tables that nothing is done to: nothing may be found there."""


def project(folder: Path, spoilers: Sequence[Spoiler]) -> Project:
    """An Alembic project that renames a column of each of the tables, or does what the spoiler is about."""
    names = [*(spoiler.table for spoiler in spoilers), *UNSPOILT]
    changing = {
        spoiler.table: change
        for listed, change in (
            (PAIRS, _move),
            (REFERRING, _refer),
            (COPYING, _copy),
            (HALVES, _copy_table),
            (REKEYED, _replace_key),
            (NUMBERED, _number),
        )
        for spoiler in listed
    }
    keys = {spoiler.table: "sa.Integer(), autoincrement=False" for spoiler in HALVES}
    keys.update({spoiler.table: "sa.String(20)" for spoiler in NUMBERED})
    made = Project(folder, "sqlite://")
    tables = "".join(
        f"    op.create_table({name!r}, sa.Column('id', {keys.get(name, 'sa.Integer()')}, primary_key=True),"
        " sa.Column('fullname', sa.String(100), nullable=False), sa.Column('number', sa.Integer()))\n"
        for name in names
    )
    tables += "".join(
        f"    op.create_table('{spoiler.table}_{suffix}', sa.Column('id', sa.Integer(), primary_key=True),"
        f" {column.format(t=spoiler.table)}, sa.Column('number', sa.Integer()))\n"
        for listed, suffix, column in (
            (REFERRING, "to", "sa.Column('fullname', sa.String(100), nullable=False, unique=True)"),
            (COPYING, "of", "sa.Column('good', sa.Integer(), nullable=False)"),
            (REKEYED, "by", "sa.Column('good', sa.Integer(), sa.ForeignKey('{t}.id'), nullable=False, index=True)"),
        )
        for spoiler in spoilers
        if spoiler in listed
    )
    drops = "".join(f"    op.drop_table({name!r})\n" for name in names)
    made.revision("0001", None, f"def upgrade():\n{tables}\n\ndef downgrade():\n{drops}")
    changes = "".join(changing.get(name, _rename)(name) for name in names)
    made.revision(
        "0002",
        "0001",
        "from contraflow import CopyColumn, CopyTable, CreateTable, KeyReference, MoveColumns, ReferColumns\n"
        "from contraflow import AddSurrogateKey, ReplaceKey, Source\n\n"
        f"change = Change(\n{changes})\nupgrade, downgrade = change.upgrade, change.downgrade\n",
    )
    return made


def _rename(name: str) -> str:
    return f"    RenameColumn(table={name!r}, old='fullname', new='display_name'),\n"


def _refer(name: str) -> str:
    column = "sa.Column('to_id', sa.Integer(), nullable=False)"
    return (
        f"    ReferColumns(table={name!r}, columns={{'fullname': 'fullname'}}, column={column}, to='{name}_to',"
        " key='id', scans=True),\n"
    )


def _number(name: str) -> str:
    column = "sa.Column('serial', sa.BigInteger(), sa.Identity())"
    return f"    AddSurrogateKey(table={name!r}, column={column}, unique='uq_{name}', copies=True),\n"


def _replace_key(name: str) -> str:
    column = "sa.Column('uid', sa.Uuid())"
    reference = f"KeyReference(table='{name}_by', old='good', new='good_uid', name='fk_{name}_uid')"
    return f"    ReplaceKey(table={name!r}, old='id', column={column}, references=[{reference}]),\n"


def _copy(name: str) -> str:
    source = f"Source(table='{name}_of', column='number', on={{'id': 'good'}})"
    column = "sa.Column('copied', sa.Integer())"
    return f"    CopyColumn(table={name!r}, column={column}, sources=[{source}], scans=True),\n"


def _copy_table(name: str) -> str:
    more = f"{name}_more"
    key = "sa.Column('id', sa.Integer(), primary_key=True, autoincrement=False)"
    columns = "sa.Column('fullname', sa.String(100), nullable=False), sa.Column('number', sa.Integer())"
    table = f"sa.Table({more!r}, sa.MetaData(), {key}, {columns})"
    return f"    CreateTable(definition={table}),\n    CopyTable(table={name!r}, to={more!r}),\n"


def image_of(table: str) -> str:
    """The column beside ``copied`` until contract."""
    digest = hashlib.sha256(json.dumps([[None, table], "copied"]).encode()).hexdigest()
    return f"cf_image_{digest[:8]}"


def _move(name: str) -> str:
    more = f"{name}_more"
    key = f"sa.Column('id', sa.Integer(), sa.ForeignKey('{name}.id', ondelete='CASCADE'), primary_key=True)"
    table = f"sa.Table({more!r}, sa.MetaData(), {key}, sa.Column('number', sa.Integer()))"
    return (
        f"    CreateTable(definition={table}),\n"
        f"    MoveColumns(table={name!r}, to={more!r}, on={{'id': 'id'}}, columns=['number']),\n"
    )
