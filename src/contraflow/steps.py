"""Steps: the closed vocabulary between operations and dialects. Pure values, no connection, no SQL.

DDL steps are Alembic's own operation objects (``AddColumnOp``, ``DropColumnOp``, ``AlterColumnOp`` ...). This
module adds what Alembic lacks: the sync, the data steps, and the blocks that say what must happen in one
writer-atomic piece.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import sqlalchemy as sa
from alembic.operations import ops

from contraflow.constraints import Constraint
from contraflow.copies import BackfillCopy, InstallCopy, ProbeCopy
from contraflow.installed import Comment, Index, Installed, KeyChange, Labels, Mend, Numbered, Widening
from contraflow.references import InstallReference
from contraflow.syncs import Pair, PairTable, Sync

__all__ = [
    "AddAlias",
    "AddColumns",
    "AllowNull",
    "Backfill",
    "BackfillCopy",
    "BackfillPair",
    "Block",
    "BuildConstraint",
    "BuildIndex",
    "ChangeKey",
    "DropAlias",
    "DropColumns",
    "DropConstraints",
    "DropIndexes",
    "EnforceNotNull",
    "ExtendEnums",
    "FillNulls",
    "ForgetNotNull",
    "Hold",
    "InstallCopy",
    "InstallPair",
    "InstallReference",
    "InstallSync",
    "Linked",
    "MakeConstraints",
    "MakeTable",
    "MakeWay",
    "NumberColumn",
    "Online",
    "Phases",
    "Probe",
    "ProbeAlias",
    "ProbeCopy",
    "ProbePair",
    "ProveReferences",
    "RelaxNotNull",
    "RemovePair",
    "RemoveSync",
    "RemoveTable",
    "RestoreNotNull",
    "SetComments",
    "SetDefaults",
    "SetNotNull",
    "Step",
    "TakeName",
    "WidenColumns",
]


@dataclass(frozen=True, kw_only=True)
class AddColumns:
    """Add new columns: nullable, without default, hidden from ``SELECT *`` where the server can."""

    table: str
    schema: str | None = None
    columns: tuple[ops.AddColumnOp, ...]


@dataclass(frozen=True, kw_only=True)
class DropColumns:
    """Drop columns that nobody uses any more, all in one statement where the server can."""

    table: str
    schema: str | None = None
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class InstallSync:
    """Add the marker column and the triggers of ``sync``. Replaces a sync of the same name with another fingerprint."""

    sync: Sync
    marked: bool = False
    """The marker column stands already, added in this phase."""


@dataclass(frozen=True, kw_only=True)
class RemoveSync:
    """Drop the triggers (and function) of a sync, and its marker column.

    ``fill_defaults`` are old NOT NULL columns that only the sync filled: while triggers and columns go one by one
    (MySQL, MariaDB), they must not fail an INSERT that leaves them out.
    """

    table: str
    schema: str | None = None
    name: str
    marker: str
    fill_defaults: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class InstallPair:
    """Create the triggers of ``pair`` on one of its tables; both carry its marker column by then."""

    pair: Pair
    on: Literal["main", "companion"]

    @property
    def end(self) -> PairTable:
        """The table the triggers stand on."""
        return self.pair.main if self.on == "main" else self.pair.companion

    @property
    def table(self) -> str:
        """The table's name."""
        return self.end.table

    @property
    def schema(self) -> str | None:
        """The table's schema."""
        return self.end.schema

    @property
    def name(self) -> str:
        """The stem of the triggers' names."""
        return self.end.name

    @property
    def fingerprint(self) -> str:
        """That of the pair."""
        return self.pair.fingerprint


@dataclass(frozen=True, kw_only=True)
class RemovePair:
    """Drop the triggers (and function) of a pair, a copy or a reference on one of its tables; its columns stay."""

    table: str
    schema: str | None = None
    name: str


@dataclass(frozen=True, kw_only=True)
class RelaxNotNull:
    """Let old NOT NULL columns hold NULL within a statement, where the sync can only act after the row is stored."""

    table: str
    schema: str | None = None
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RestoreNotNull:
    """Undo :class:`RelaxNotNull` exactly."""

    table: str
    schema: str | None = None
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class AllowNull:
    """Let old NOT NULL columns hold NULLs, on every server, beside the writers; :class:`RestoreNotNull`,
    :class:`EnforceNotNull` and :class:`SetNotNull` undo it.
    """

    table: str
    schema: str | None = None
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ForgetNotNull:
    """Columns that :class:`AllowNull` let hold NULLs do so for good: nothing is left to restore."""

    table: str
    schema: str | None = None
    names: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FillNulls:
    """Write a value into the NULLs of a column, or into the rows that violate a constraint, in short transactions."""

    table: str
    schema: str | None = None
    mend: Mend
    violated: Constraint | Index | None = None
    """The constraint, or the unique index of which one of the rows that are alike is left as it is."""


@dataclass(frozen=True, kw_only=True)
class EnforceNotNull:
    """Prove, without blocking writers, that the columns hold no NULL, so that :class:`SetNotNull` is short."""

    table: str
    schema: str | None = None
    names: tuple[str, ...]
    defaults: Mapping[str, str] = field(default_factory=dict)
    """Server defaults of these columns, given at once where the proof is NOT NULL itself (MySQL, MariaDB)."""
    passing: tuple[str, ...] = ()
    """Further columns to prove it of, which the phase then drops: where they are gone, nothing is left to do."""


@dataclass(frozen=True, kw_only=True)
class SetNotNull:
    """Give new columns their final shape: NOT NULL where ``not_null``, the server default of ``defaults``, visible."""

    table: str
    schema: str | None = None
    not_null: tuple[str, ...] = ()
    defaults: Mapping[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    """All new columns of the table: those that were hidden become visible."""
    passing: tuple[str, ...] = ()
    """See :attr:`EnforceNotNull.passing`: where nothing could prove it before, the hold does."""


@dataclass(frozen=True, kw_only=True)
class Backfill:
    """Write the forward images of rows that were never synced, in short transactions."""

    sync: Sync


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Count rows that were never synced, rows whose sides disagree, and NULLs where the new schema forbids them."""

    sync: Sync
    not_null: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BackfillPair:
    """Have the triggers of a pair see every row of the old table that they never saw, in short transactions."""

    pair: Pair
    lens: Sync
    """The pair as a lens of its old table, for the checks of values; new columns carry their table's name."""


@dataclass(frozen=True, kw_only=True)
class ProbePair:
    """Count rows that were never synced, and rows whose columns in the two tables disagree."""

    pair: Pair


@dataclass(frozen=True, kw_only=True)
class BuildIndex:
    """Build an index beside the writers. What a build that failed or died left behind is removed first."""

    table: str
    schema: str | None = None
    index: Index


@dataclass(frozen=True, kw_only=True)
class MakeConstraints:
    """Turn unique indexes that stand into constraints, where the server tells the two apart."""

    table: str
    schema: str | None = None
    indexes: tuple[Index, ...]


@dataclass(frozen=True, kw_only=True)
class DropIndexes:
    """Drop indexes and unique constraints, half built ones too; before any column under them is dropped."""

    table: str
    schema: str | None = None
    indexes: tuple[Index, ...]


@dataclass(frozen=True, kw_only=True)
class ChangeKey:
    """Give the table another primary key, in the place of the one it has; or a first one, or none.

    Its columns are proven to be NOT NULL. Foreign keys that refer to the old key's columns go on doing so.
    """

    table: str
    schema: str | None = None
    key: KeyChange
    doubles: tuple[Index, ...] = ()
    """Unique constraints over the new key's columns that the phase goes on to drop: one index may serve for both."""

    @property
    def index(self) -> Index:
        """The new key as an index."""
        return Index(name=self.key.name, columns=self.key.new, unique=True, late=True, primary=True)


@dataclass(frozen=True, kw_only=True)
class NumberColumn:
    """One stage of a new column that the server numbers, for rows of both releases, on the way to a primary key.

    - ``add`` (expand): add it; new rows are numbered from now on.
    - ``fill`` (migrate): number the rows from before, where adding it did not. Online, by key ranges.
    - ``end`` (contract): what numbers it gets its final form.
    - ``undo`` (rollback): drop it, with what numbers it.
    """

    stage: Literal["add", "fill", "end", "undo"]
    table: str
    schema: str | None = None
    numbered: Numbered
    key: KeyChange
    column: sa.Column[Any] | None = None
    """For ``add``: its type and comment."""


@dataclass(frozen=True, kw_only=True)
class ProveReferences:
    """Prove, beside the writers, the foreign keys that :class:`ChangeKey` had to make anew, if it had to."""

    table: str
    schema: str | None = None
    columns: tuple[str, ...]
    """The columns that they refer to."""


@dataclass(frozen=True, kw_only=True)
class WidenColumns:
    """One stage of giving columns wider types. Nullability, default, collation and comment stay.

    Where the server changes a type without reading a row, ``begin`` does so and ``undo`` takes it back. Elsewhere a
    second column, the *shadow*, has the other type, and triggers (the *mirror*) write into it whatever is written into
    the column that has the name:

    - ``begin`` (expand): add the shadow, of the wider type, and the mirror.
    - ``fill`` (migrate): write the shadow of the rows from before. Online, by key ranges.
    - ``prove`` (migrate): the shadow becomes NOT NULL where the column is. Online.
    - ``index`` (migrate): build on the shadow what stands on the column. Online.
    - ``swap`` (migrate): the two columns exchange their names. From now on the shadow has the old type, and a constant
      where it does not hold the value.
    - ``refer`` (after each swap): prove the foreign keys that had to be made anew. Online.
    - ``reindex`` (rollback): build on the column of the old type what stands on the other one. Online.
    - ``guard`` (rollback): refuse new values that the old type does not hold.
    - ``undo`` (rollback): exchange the names back, drop shadow and mirror.
    - ``end`` (contract): drop shadow and mirror.
    """

    stage: Literal["begin", "fill", "prove", "index", "swap", "refer", "guard", "reindex", "undo", "end"]
    table: str
    schema: str | None = None
    widenings: tuple[Widening, ...]
    mirror: str
    """The stem of the names of the mirror's triggers and function; at most 50 bytes."""
    key: tuple[str, ...] = ()
    """The columns of the primary key, where it matters (``begin``, ``fill``)."""
    types: Mapping[str, sa.types.TypeEngine[Any]] = field(default_factory=dict)
    """For ``begin``: column name to the type it gets."""


@dataclass(frozen=True, kw_only=True)
class SetDefaults:
    """Give columns other server defaults, or none. No row changes."""

    table: str
    schema: str | None = None
    defaults: Mapping[str, str | None]


@dataclass(frozen=True, kw_only=True)
class MakeTable:
    """Create a table, with its indexes. Only the new release will know it."""

    definition: sa.Table
    """In a MetaData of its own, in which the tables its foreign keys refer to stand as far as the keys need them."""

    @property
    def table(self) -> str:
        """The table's name."""
        return self.definition.name

    @property
    def schema(self) -> str | None:
        """The table's schema."""
        return self.definition.schema


@dataclass(frozen=True, kw_only=True)
class RemoveTable:
    """Drop a table, with all that stands on it."""

    table: str
    schema: str | None = None


@dataclass(frozen=True, kw_only=True)
class AddAlias:
    """Let the table be read and written under a second name, in the new release's shape, while both releases run."""

    table: str
    schema: str | None = None
    alias: str
    columns: tuple[str, ...]
    """The new release's columns, in its order."""
    replaced: tuple[Index, ...] = ()
    """Indexes of the old release only, which the second name need not have."""
    name: str
    """The stem of the names of whatever else the alias needs; at most 50 bytes, unique in the schema."""


@dataclass(frozen=True, kw_only=True)
class ProbeAlias:
    """Count rows that are not the same under both names, where the second name is a table of its own."""

    table: str
    schema: str | None = None
    alias: str
    columns: tuple[str, ...]
    """The new release's columns."""
    key: tuple[str, ...]
    """The columns of the primary key."""


@dataclass(frozen=True, kw_only=True)
class DropAlias:
    """Undo :class:`AddAlias`."""

    table: str
    schema: str | None = None
    alias: str
    name: str
    parked: bool = False
    """Only what :class:`TakeName` moved aside."""


@dataclass(frozen=True, kw_only=True)
class MakeWay:
    """Do what :class:`TakeName` needs a moment later, when writers that it met are done. Nobody sees a change."""

    table: str
    schema: str | None = None
    alias: str
    name: str


@dataclass(frozen=True, kw_only=True)
class TakeName:
    """Give the table its alias's name, at once: no statement of the new release meets neither or both.

    Where this cannot also drop what the alias was, that is moved aside: :class:`DropAlias` removes it.
    """

    table: str
    schema: str | None = None
    alias: str
    name: str


@dataclass(frozen=True, kw_only=True)
class BuildConstraint:
    """Make a foreign key or a check beside the writers, and prove it for the rows that are there."""

    table: str
    schema: str | None = None
    constraint: Constraint


@dataclass(frozen=True, kw_only=True)
class DropConstraints:
    """Drop foreign keys and checks; before any index or column under them is dropped."""

    table: str
    schema: str | None = None
    constraints: tuple[Constraint, ...]


@dataclass(frozen=True, kw_only=True)
class ExtendEnums:
    """Add values to enumerated types, behind those they have. It cannot be taken back on every server."""

    table: str
    schema: str | None = None
    labels: tuple[Labels, ...]


@dataclass(frozen=True, kw_only=True)
class SetComments:
    """Give the table and columns of it their comments, where the server has any. No row changes."""

    table: str
    schema: str | None = None
    comments: tuple[Comment, ...]


Linked: TypeAlias = InstallCopy | InstallPair | InstallReference
"""Triggers on a table that write another one."""
Step: TypeAlias = (
    AddAlias
    | AddColumns
    | AllowNull
    | FillNulls
    | ForgetNotNull
    | BuildConstraint
    | BuildIndex
    | ChangeKey
    | DropAlias
    | DropColumns
    | DropConstraints
    | DropIndexes
    | MakeConstraints
    | InstallCopy
    | InstallPair
    | InstallReference
    | MakeTable
    | MakeWay
    | InstallSync
    | RemovePair
    | RemoveSync
    | RemoveTable
    | RelaxNotNull
    | RestoreNotNull
    | EnforceNotNull
    | ExtendEnums
    | SetComments
    | SetDefaults
    | SetNotNull
    | Backfill
    | BackfillCopy
    | BackfillPair
    | Probe
    | ProbeCopy
    | WidenColumns
    | ProbeAlias
    | ProbePair
    | NumberColumn
    | ProveReferences
    | TakeName
)


@dataclass(frozen=True, kw_only=True)
class Hold:
    """Steps on one table that writers must see all at once: one transaction, or one lock hold of harmless prefixes."""

    title: str
    table: str
    schema: str | None = None
    steps: tuple[Step, ...]
    locked: bool = True
    """Whether the table is locked first. Steps on whole tables take their own locks, of more than one table."""


@dataclass(frozen=True, kw_only=True)
class Online:
    """One step that runs outside of any transaction, beside the writers, and may take long."""

    title: str
    table: str
    schema: str | None = None
    step: Step


Block: TypeAlias = Hold | Online


@dataclass(frozen=True, kw_only=True)
class Phases:
    """A planned upgrade: the blocks of each phase in order, and what will be installed."""

    expand: tuple[Block, ...]
    migrate: tuple[Block, ...]
    verify: tuple[Block, ...]
    contract: tuple[Block, ...]
    rollback: tuple[Block, ...]
    installed: tuple[Installed, ...]
