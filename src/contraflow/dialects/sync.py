"""The sync rule as trigger bodies.

The rule is written once, as a small decision tree (:func:`insert_tree`, :func:`update_tree`); two renderers put it into
the two forms servers offer: BEFORE triggers that assign to ``NEW`` (PostgreSQL, CockroachDB, MySQL, MariaDB),
and AFTER triggers that update the
stored row (SQLite, where ``NEW`` cannot be assigned).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from contraflow.dialects.compiler import Compiler
from contraflow.expressions import Ref
from contraflow.lens import Group, Side
from contraflow.steps import Sync

__all__ = ["TriggerText", "disagreement", "function_name", "trigger_statements"]


@dataclass(frozen=True, kw_only=True)
class TriggerText:
    """One trigger to create, and the function it needs, if any."""

    name: str
    event: str
    """``insert`` or ``update``."""
    create: str
    function: str | None = None
    """The statement that creates the trigger's function; the same text for all triggers of a sync."""


# --- the rule ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Null:
    """All of the columns are NULL; true of no columns."""

    columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class AtDefault:
    """Each of the columns equals its server default, or is NULL if it has none."""

    columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Changed:
    """The statement changed the value of at least one of the columns."""

    columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Agrees:
    """The group's images in one direction equal what is stored, after coercion; true of no images."""

    group: Group
    direction: Side
    """``new``: the new side is the forward image of the old one; ``old``: the reverse."""


@dataclass(frozen=True, kw_only=True)
class Unsynced:
    """The row was never synced."""


Condition: TypeAlias = Null | AtDefault | Changed | Agrees | Unsynced


@dataclass(frozen=True, kw_only=True)
class Write:
    """Set columns to their images: forward images if ``side`` is ``new``, backward images if it is ``old``."""

    group: Group
    side: Side
    columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Fill:
    """Set columns that are NULL to the default of their schema, then go on."""

    columns: tuple[str, ...]
    then: Tree


@dataclass(frozen=True, kw_only=True)
class If:
    """A decision."""

    condition: Condition
    then: Tree = None
    otherwise: Tree = None


Tree: TypeAlias = "If | Fill | Write | None"
"""What to do with one group; None is: nothing."""


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """The rule for one group of a sync."""

    sync: Sync
    group: Group

    @property
    def old(self) -> tuple[str, ...]:
        return self.group.old

    @property
    def new(self) -> tuple[str, ...]:
        return self.group.new

    def write(self, side: Side, *, tracked_only: bool = False) -> Tree:
        images = self.group.forward if side == "new" else self.group.backward
        columns = tuple(name for name in images if not (tracked_only and name in self.group.once))
        return Write(group=self.group, side=side, columns=columns) if columns else None

    def write_unless_agreed(self, side: Side, *, tracked_only: bool = False) -> Tree:
        """Write the images of ``side`` unless they are there already.

        Writing an image that is there changes nothing, so only a non-deterministic image needs the question,
        and it is answered by the
        other direction.
        """
        deterministic = self.group.forward_deterministic if side == "new" else self.group.backward_deterministic
        write = self.write(side, tracked_only=tracked_only)
        if deterministic or write is None:
            return write
        return If(condition=Agrees(group=self.group, direction=_other(side)), otherwise=write)

    def settle(self) -> Tree:
        """Both sides are given: nothing if they agree in one direction, else the winner's images."""
        loser = _other(self.group.winner)
        if self._mirrored:
            return self.write(loser, tracked_only=True)
        # The winner's own image onto the loser needs no question; the other direction does, unless it cannot
        # be computed twice.
        counter = self.group.winner
        deterministic = self.group.forward_deterministic if counter == "new" else self.group.backward_deterministic
        write = self.write_unless_agreed(loser, tracked_only=True)
        if write is None or not deterministic:
            return write
        return If(
            condition=Agrees(group=self.group, direction=counter),
            otherwise=self.write(loser, tracked_only=True),
        )

    def fill_new_defaults(self, then: Tree) -> Tree:
        columns = tuple(
            name for name in self.new if name in self.group.forward and self.sync.columns[name].default is not None
        )
        return Fill(columns=columns, then=then) if columns else then

    def omitted(self) -> Tree:
        """Neither side is given, or the old one only as its defaults: what the declaration says."""
        if self.group.omitted is None:
            return None
        if self.group.omitted == "old":
            return self.write_unless_agreed("new")
        return self.fill_new_defaults(self.write_unless_agreed("old"))

    def insert_given(self) -> Tree:
        """The new side is given."""
        at_default: Condition = Null(columns=self.old)
        if self._old_has_defaults:
            at_default = AtDefault(columns=self.old)
            empty: Tree = If(
                condition=Null(columns=self.old),
                then=self.write_unless_agreed("old"),
                otherwise=If(condition=at_default, then=self.write_unless_agreed("old"), otherwise=self.settle()),
            )
        else:
            empty = If(condition=at_default, then=self.write_unless_agreed("old"), otherwise=self.settle())
        return self.fill_new_defaults(empty)

    def insert(self) -> Tree:
        columns = self.sync.columns
        required_old = any(not columns[name].nullable and columns[name].default is None for name in self.group.backward)
        # Where nobody had to say whose omission it is (CF106), a default is its column's image.
        asked = self.group.omitted is not None or required_old
        required_new = any(
            not columns[name].nullable and (columns[name].default is None or not asked) for name in self.group.forward
        )
        if required_new:
            neither = self.write("new")
        elif required_old:
            neither = self.fill_new_defaults(self.write("old"))
        else:
            neither = self.omitted()
        old_given = self.write("new")
        if self._old_has_defaults and all(columns[name].nullable for name in self.new):
            old_given = If(condition=AtDefault(columns=self.old), then=self.omitted(), otherwise=old_given)
        return If(
            condition=Null(columns=self.new),
            then=If(condition=Null(columns=self.old), then=neither, otherwise=old_given),
            otherwise=self.insert_given(),
        )

    def update(self) -> Tree:
        only_old: Tree = self.write_unless_agreed("new", tracked_only=True)
        if self.group.once:
            only_old = If(condition=Unsynced(), then=self.write("new"), otherwise=only_old)
        never_synced = If(condition=Null(columns=self.new), then=self.write("new"), otherwise=self.insert_given())
        changed_old = If(
            condition=Changed(columns=self.old),
            then=only_old,
            otherwise=If(condition=Unsynced(), then=never_synced),
        )
        return If(
            condition=Changed(columns=self.new),
            then=If(
                condition=Changed(columns=self.old),
                then=self.settle(),
                otherwise=self.write_unless_agreed("old", tracked_only=True),
            ),
            otherwise=changed_old,
        )

    @property
    def _mirrored(self) -> bool:
        """Both directions only copy, column by column of the same type: agreeing in one is agreeing in both.

        Then writing the image of a side that agrees changes nothing, and the question is not worth its cost.
        """
        forward = _copies(self.group.forward)
        backward = _copies(self.group.backward)
        return (
            forward is not None
            and backward is not None
            and forward == {new: old for old, new in backward.items()}
            and all(
                repr(self.sync.columns[new].type) == repr(self.sync.columns[old].type) for new, old in forward.items()
            )
        )

    @property
    def _old_has_defaults(self) -> bool:
        return any(self.sync.columns[name].default is not None for name in self.old)


def _copies(images: Mapping[str, object]) -> dict[str, str] | None:
    """Each column and the one it is copied from; None if an image is more than a copy."""
    copies = {name: image.name for name, image in images.items() if isinstance(image, Ref)}
    return copies if len(copies) == len(images) else None


def _other(side: Side) -> Side:
    return "old" if side == "new" else "new"


def _prune(tree: Tree) -> Tree:
    """The tree without decisions that cannot matter."""
    if isinstance(tree, Fill):
        return Fill(columns=tree.columns, then=_prune(tree.then))
    if not isinstance(tree, If):
        return tree
    then, otherwise = _prune(tree.then), _prune(tree.otherwise)
    condition = tree.condition
    if isinstance(condition, Null) and not condition.columns:
        return then
    if isinstance(condition, Changed) and not condition.columns:
        return otherwise
    if isinstance(condition, Agrees) and not _compared(condition):
        return then
    if then == otherwise:
        return then
    return If(condition=condition, then=then, otherwise=otherwise)


def _compared(condition: Agrees) -> tuple[str, ...]:
    group = condition.group
    images = group.forward if condition.direction == "new" else group.backward
    return tuple(name for name in images if name not in group.once)


def insert_tree(sync: Sync, group: Group) -> Tree:
    """What an INSERT does to the group."""
    return _prune(_Rule(sync=sync, group=group).insert())


def update_tree(sync: Sync, group: Group) -> Tree:
    """What an UPDATE that leaves the marker alone does to the group."""
    return _prune(_Rule(sync=sync, group=group).update())


# --- conditions to SQL ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Words:
    """How one form of trigger refers to the row; turns conditions and images into SQL."""

    sync: Sync
    compiler: Compiler
    new: Callable[[str], str]
    old: Callable[[str], str]
    variables: bool
    """Coerce images through local variables (else by the comparison itself)."""

    def image(self, write: Write, name: str, filled: frozenset[str] = frozenset()) -> str:
        images = write.group.forward if write.side == "new" else write.group.backward
        return self._image(images[name], name, filled)

    def _image(self, expression: object, name: str, filled: frozenset[str]) -> str:
        def ref(column: str) -> str:
            text = self.new(column)
            return f"COALESCE({text}, {self.default(column)})" if column in filled else text

        return self.compiler.image(expression, self.sync.columns[name], ref)  # type: ignore[arg-type]

    def default(self, name: str) -> str:
        return f"({self.sync.columns[name].default})"

    def same(self, left: str, right: str, name: str) -> str:
        return f"({self.compiler.same(left, right, self.sync.columns[name].type)})"

    def _unchanged(self, name: str) -> str:
        return f"({self.compiler.unchanged(self.new(name), self.old(name), self.sync.columns[name].type)})"

    def condition(self, condition: Condition, filled: frozenset[str] = frozenset()) -> str:
        if isinstance(condition, Null):
            return _all(f"{self.new(name)} IS NULL" for name in condition.columns)
        if isinstance(condition, AtDefault):
            return _all(self._at_default(name) for name in condition.columns)
        if isinstance(condition, Changed):
            return "NOT " + _all(self._unchanged(name) for name in condition.columns)
        if isinstance(condition, Unsynced):
            return f"{self.old(self.sync.marker)} IS NULL"
        return _all(self._agrees(condition, name, filled) for name in _compared(condition))

    def _at_default(self, name: str) -> str:
        column = self.sync.columns[name]
        if column.default is None:
            return f"{self.new(name)} IS NULL"
        if not column.default_constant:
            return self.compiler.false  # now() and the like: no value tells whether it was given
        return self.same(self.new(name), self.default(name), name)

    def _agrees(self, condition: Agrees, name: str, filled: frozenset[str]) -> str:
        images = condition.group.forward if condition.direction == "new" else condition.group.backward
        right = self.variable(name) if self.variables else self._image(images[name], name, filled)
        left = self.new(name)
        if name in filled:
            left = f"COALESCE({left}, {self.default(name)})"
        return self.same(left, right, name)

    def variable(self, name: str) -> str:
        return f"cf_{list(self.sync.columns).index(name)}"

    def declared(self, name: str) -> str:
        """The declaration of the column's variable."""
        return f"{self.variable(name)} {self.compiler.variable_type(self.sync.columns[name])}"


def _all(parts: Iterator[str] | list[str]) -> str:
    return "(" + " AND ".join(parts) + ")"


# --- BEFORE triggers
# ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Before:
    """Renders trees as statements that assign to NEW."""

    words: _Words
    assign: Callable[[str, str], str]
    assign_variable: Callable[[str, str], str] | None
    """None where variables are declared in a block of their own, only where they are needed: MySQL and MariaDB execute
    each declaration, and most writes need none."""

    def lines(self, tree: Tree, depth: int) -> list[str]:
        pad = "  " * depth
        if tree is None:
            return []
        if isinstance(tree, Write):
            return [f"{pad}{self.assign(name, self.words.image(tree, name))}" for name in tree.columns]
        if isinstance(tree, Fill):
            filled = [
                f"{pad}{self.assign(name, f'COALESCE({self.words.new(name)}, {self.words.default(name)})')}"
                for name in tree.columns
            ]
            return [*filled, *self.lines(tree.then, depth)]
        if isinstance(tree.condition, Agrees):
            return self._with_images(tree, tree.condition, depth)
        return self._decision(tree, depth)

    def _with_images(self, tree: If, condition: Agrees, depth: int) -> list[str]:
        """The decision, after the images it compares have been put into variables, which coerces them."""
        pad = "  " * depth
        images = condition.group.forward if condition.direction == "new" else condition.group.backward
        values = {
            name: self.words.compiler.image(images[name], self.words.sync.columns[name], self.words.new)
            for name in _compared(condition)
        }
        if self.assign_variable is not None:
            assigned = [
                f"{pad}{self.assign_variable(self.words.variable(name), image)}" for name, image in values.items()
            ]
            return [*assigned, *self._decision(tree, depth)]
        declared = [f"{pad}  DECLARE {self.words.declared(name)} DEFAULT {image};" for name, image in values.items()]
        return [f"{pad}BEGIN", *declared, *self._decision(tree, depth + 1), f"{pad}END;"]

    def _decision(self, tree: If, depth: int) -> list[str]:
        pad = "  " * depth
        condition = self.words.condition(tree.condition)
        then, otherwise = self.lines(tree.then, depth + 1), self.lines(tree.otherwise, depth + 1)
        if not then:
            condition, then, otherwise = f"NOT {condition}", otherwise, []
        lines = [f"{pad}IF {condition} THEN", *then]
        if otherwise:
            lines += [f"{pad}ELSE", *otherwise]
        return [*lines, f"{pad}END IF;"]

    def declarations(self) -> list[str]:
        """The variables that any Agrees of the sync may use."""
        names = {
            name
            for group in self.words.sync.groups
            for name in (*group.forward, *group.backward)
            if name not in group.once
        }
        return [f"{self.words.declared(name)};" for name in self.words.sync.columns if name in names]


def function_name(sync: Sync, product: str) -> str:
    """The name of the sync's function on PostgreSQL and CockroachDB.

    CockroachDB keeps no comments in a function, and cannot replace one that a trigger uses: there the name carries
    the fingerprint. At most 63 bytes.
    """
    if product != "cockroachdb":
        return sync.name
    return f"{sync.name.encode()[:46].decode(errors='ignore')}_{sync.fingerprint}"


def _postgresql(sync: Sync, compiler: Compiler, *, row: str, function: str) -> list[TriggerText]:
    """``row`` is the form of a reference: ``{}.`` or ``({}).``, CockroachDB's."""
    quote = compiler.quote
    words = _Words(
        sync=sync,
        compiler=compiler,
        new=lambda name: f"{row.format('NEW')}{quote(name)}",
        old=lambda name: f"{row.format('OLD')}{quote(name)}",
        variables=True,
    )
    before = _Before(
        words=words,
        assign=lambda name, value: f"NEW.{quote(name)} := {value};",
        assign_variable=lambda name, value: f"{name} := {value};",
    )
    marker = quote(sync.marker)
    lines = ["DECLARE", *(f"  {line}" for line in before.declarations())]
    lines += ["BEGIN", f"  /* contraflow {sync.fingerprint} */", "  IF TG_OP = 'INSERT' THEN"]
    for group in sync.groups:
        lines += before.lines(insert_tree(sync, group), 2)
    lines += [f"    NEW.{marker} := 1;", "    RETURN NEW;", "  END IF;"]
    for group in sync.groups:
        lines += before.lines(update_tree(sync, group), 1)
    lines += [f"  NEW.{marker} := 1;", "  RETURN NEW;", "END"]
    body = "\n".join(lines)
    tag = "$contraflow$"
    while tag in body:
        tag = f"{tag[:-1]}_$"
    qualified = compiler.table(function, sync.schema)
    create = f"CREATE FUNCTION {qualified}() RETURNS trigger LANGUAGE plpgsql AS {tag}\n{body}\n{tag}"
    table = compiler.table(sync.table, sync.schema)
    changed = words.condition(Changed(columns=_synced_columns(sync)))
    new_marker, old_marker = words.new(sync.marker), words.old(sync.marker)
    when = f"{new_marker} IS NOT DISTINCT FROM {old_marker} AND ({old_marker} IS NULL OR {changed})"
    execute = f"FOR EACH ROW {{when}}EXECUTE FUNCTION {qualified}()"
    return [
        TriggerText(
            name=f"{sync.name}_u",
            event="update",
            create=f"CREATE TRIGGER {quote(sync.name + '_u')} BEFORE UPDATE ON {table} "
            + execute.replace("{when}", f"WHEN ({when}) "),
            function=create,
        ),
        TriggerText(
            name=f"{sync.name}_i",
            event="insert",
            create=f"CREATE TRIGGER {quote(sync.name + '_i')} BEFORE INSERT ON {table} "
            + execute.replace("{when}", ""),
            function=create,
        ),
    ]


def _synced_columns(sync: Sync) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in sync.groups for name in group.columns))


def _mysql(sync: Sync, compiler: Compiler) -> list[TriggerText]:
    quote = compiler.quote
    words = _Words(
        sync=sync,
        compiler=compiler,
        new=lambda name: f"NEW.{quote(name)}",
        old=lambda name: f"OLD.{quote(name)}",
        variables=True,
    )
    before = _Before(
        words=words,
        assign=lambda name, value: f"SET NEW.{quote(name)} = {value};",
        assign_variable=None,
    )
    table = compiler.table(sync.table, sync.schema)
    marker = quote(sync.marker)
    comment = f"/* contraflow {sync.fingerprint} */"

    def create(event: str, body: list[str]) -> str:
        name = compiler.table(f"{sync.name}_{event[0]}", sync.schema)
        opening = f"CREATE TRIGGER {name} BEFORE {event.upper()} ON {table} FOR EACH ROW BEGIN {comment}"
        return "\n".join([opening, *body, "END"])

    insert = [line for group in sync.groups for line in before.lines(insert_tree(sync, group), 1)]
    insert.append(f"  SET NEW.{marker} = 1;")
    # The trees do nothing to a synced row that did not change, so they need no question before them.
    update = [
        f"  IF NEW.{marker} <=> OLD.{marker} THEN",
        *(line for group in sync.groups for line in before.lines(update_tree(sync, group), 2)),
        f"    IF OLD.{marker} IS NULL THEN SET NEW.{marker} = 1; END IF;",
        "  END IF;",
    ]
    return [
        TriggerText(name=f"{sync.name}_u", event="update", create=create("update", update)),
        TriggerText(name=f"{sync.name}_i", event="insert", create=create("insert", insert)),
    ]


# --- AFTER triggers
# -------------------------------------------------------------------------------------------------------


def _outcomes(
    tree: Tree, words: _Words, path: tuple[str, ...] = (), filled: frozenset[str] = frozenset()
) -> Iterator[tuple[str, str, str]]:
    """Each (column, condition, value) that a tree may write; the conditions of one column exclude each other."""
    if isinstance(tree, Write):
        for name in tree.columns:
            yield name, _all(list(path)) if path else "1", words.image(tree, name, filled)
    elif isinstance(tree, Fill):
        for name in tree.columns:
            condition = _all([*path, f"{words.new(name)} IS NULL"])
            yield name, condition, words.default(name)
        yield from _outcomes(tree.then, words, path, filled | frozenset(tree.columns))
    elif isinstance(tree, If):
        condition = words.condition(tree.condition, filled)
        yield from _outcomes(tree.then, words, (*path, f"({condition})"), filled)
        yield from _outcomes(tree.otherwise, words, (*path, f"NOT ({condition})"), filled)


def _assignments(trees: list[Tree], words: _Words) -> list[str]:
    """What the follow-up UPDATE sets. It fails where a column that may not be NULL would become, or stay, NULL."""
    sync = words.sync
    cases: dict[str, list[str]] = {name: [] for name in sync.enforced}
    for tree in trees:
        for name, condition, value in _outcomes(tree, words):
            cases.setdefault(name, []).append(f"WHEN {condition} THEN {value}")
    texts = []
    for name, whens in cases.items():
        value = f"CASE {' '.join(whens)} ELSE {words.new(name)} END" if whens else words.new(name)
        if name in sync.enforced:
            message = _text(f"NOT NULL constraint failed: {sync.table}.{name}")
            value = f"COALESCE({value}, RAISE(ABORT, {message}))"
        texts.append(f"{words.compiler.quote(name)} = {value}")
    return texts


def _sqlite(sync: Sync, compiler: Compiler, *, without_rowid: bool) -> list[TriggerText]:
    quote = compiler.quote
    words = _Words(
        sync=sync,
        compiler=compiler,
        new=lambda name: f"NEW.{quote(name)}",
        old=lambda name: f"OLD.{quote(name)}",
        variables=False,
    )
    key = sync.key if without_rowid else ("_rowid_",)
    where = " AND ".join(f"{_key(name, quote)} IS NEW.{_key(name, quote)}" for name in key)
    table = quote(sync.table)
    marker = quote(sync.marker)
    comment = f"/* contraflow {sync.fingerprint} */"
    # The follow-up UPDATE always changes the marker, so that the UPDATE trigger knows it for the sync's own.
    toggle = f"{marker} = CASE NEW.{marker} WHEN 1 THEN 2 ELSE 1 END"

    def create(event: str, when: str, trees: list[Tree]) -> str:
        # The trigger is made in the table's file; inside it, and behind ON, SQLite forbids qualified names.
        name = compiler.table(f"{sync.name}_{event[0]}", sync.schema)
        assignments = ",\n    ".join([*_assignments(trees, words), toggle])
        return "\n".join(
            [
                f"CREATE TRIGGER {name} AFTER {event.upper()} ON {table} FOR EACH ROW {when}BEGIN {comment}",
                f"  UPDATE {table} SET\n    {assignments}\n  WHERE {where};",
                "END",
            ]
        )

    changed = words.condition(Changed(columns=_synced_columns(sync)))
    when = f"WHEN NEW.{marker} IS OLD.{marker} AND (OLD.{marker} IS NULL OR {changed}) "
    return [
        TriggerText(
            name=f"{sync.name}_u",
            event="update",
            create=create("update", when, [update_tree(sync, group) for group in sync.groups]),
        ),
        TriggerText(
            name=f"{sync.name}_i",
            event="insert",
            create=create("insert", "", [insert_tree(sync, group) for group in sync.groups]),
        ),
    ]


def _key(name: str, quote: Callable[[str], str]) -> str:
    return name if name == "_rowid_" else quote(name)


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


# --- the surface
# -----------------------------------------------------------------------------------------------------------


def trigger_statements(
    sync: Sync, product: str, compiler: Compiler, *, without_rowid: bool = False
) -> list[TriggerText]:
    """The triggers of a sync, the UPDATE trigger first.

    That order matters where DDL commits by itself: an INSERT trigger alone would mark rows as synced whose
    later UPDATEs nobody follows.
    ``without_rowid`` says that an SQLite table has none.
    """
    if product == "sqlite":
        return _sqlite(sync, compiler, without_rowid=without_rowid)
    if product in ("mysql", "mariadb"):
        return _mysql(sync, compiler)
    row = "({})." if product == "cockroachdb" else "{}."
    return _postgresql(sync, compiler, row=row, function=function_name(sync, product))


def disagreement(sync: Sync, group: Group, compiler: Compiler) -> str:
    """The condition on a table's row under which a group's sides agree in neither direction; false if it cannot be."""

    def agrees(direction: Side, deterministic: bool) -> str | None:
        images = group.forward if direction == "new" else group.backward
        names = [name for name in images if name not in group.once]
        if not deterministic:
            return None
        parts = [
            compiler.same(
                compiler.quote(name),
                compiler.coerced(compiler.image(images[name], sync.columns[name], compiler.quote), sync.columns[name]),
                sync.columns[name].type,
            )
            for name in names
        ]
        return _all([f"({part})" for part in parts]) if parts else compiler.true

    found = [
        text
        for text in (agrees("new", group.forward_deterministic), agrees("old", group.backward_deterministic))
        if text is not None
    ]
    if compiler.true in found:
        return compiler.false if compiler.false != "0" else "(1 = 0)"
    return f"NOT ({' OR '.join(found)})"
