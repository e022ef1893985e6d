"""The sync rule as trigger bodies.

The rule is written once, as small decision trees (:mod:`contraflow.dialects.rule`); two renderers put them into
the two forms servers offer: BEFORE triggers that assign to ``NEW`` (PostgreSQL, CockroachDB, MySQL, MariaDB),
and AFTER triggers that update the
stored row (SQLite, where ``NEW`` cannot be assigned).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from contraflow.dialects.compiler import Compiler, plain_literal
from contraflow.dialects.plpgsql import definer_function, natural_lock, quoted_body
from contraflow.dialects.rule import (
    Agrees,
    AtDefault,
    Changed,
    Condition,
    Fill,
    If,
    Null,
    Tree,
    Unsynced,
    Write,
    insert_tree,
    judged,
    update_tree,
)
from contraflow.expressions import walk
from contraflow.expressions.trees import Lookup
from contraflow.lens import Group
from contraflow.syncs import Sync

__all__ = ["TOUCHED", "TriggerText", "disagreement", "forgotten", "function_name", "trigger_statements"]


TOUCHED = 0
"""The marker by which the backfill has the triggers fill a row: what they look up must stay, and may be made first."""


@dataclass(frozen=True, kw_only=True)
class TriggerText:
    """One trigger to create, and the function it needs, if any."""

    name: str
    event: str
    """``insert`` or ``update``."""
    create: str
    function: str | None = None
    """The statement that creates the trigger's function; the same text for all triggers of a sync."""


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

    def making(self, write: Write) -> Iterator[Lookup]:
        """The lookups of the images that make what they do not find."""
        for name in write.columns if write.side == "new" else ():
            for node in walk(write.group.forward[name]):
                if isinstance(node, Lookup) and node.made is not None:
                    yield node

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
        return _all(self._agrees(condition, name, filled) for name in judged(condition))

    def _at_default(self, name: str) -> str:
        column = self.sync.columns[name]
        if column.default is None:
            return f"{self.new(name)} IS NULL"
        if not column.default_constant:
            return self.compiler.false  # now() and the like: no value tells whether it was given
        return self.same(self.new(name), self.default(name), name)

    def _agrees(self, condition: Agrees, name: str, filled: frozenset[str]) -> str:
        image = judged(condition)[name]
        left = self.new(name)
        if name in filled:
            left = f"COALESCE({left}, {self.default(name)})"
        if not self.variables:
            return self.same(left, self._image(image, name, filled), name)
        if self.compiler.is_stored_whole(image, self.sync.columns[name]):
            return f"({self.compiler.unchanged(left, self._image(image, name, filled), self.sync.columns[name].type)})"
        return self.same(left, self.variable(name), name)

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
    make: Callable[[Lookup], list[str]]
    """The lines that make what a lookup does not find."""
    ask_again: Callable[[str, Write], list[str]] | None = None
    """The lines that look again for what was not found, when nobody is about to insert it."""
    mark: str = ""
    """Assigns the marker wherever the tree found a change, or a row never synced; empty if that is done after it."""

    def lines(self, tree: Tree, depth: int) -> list[str]:
        pad = "  " * depth
        if tree is None:
            return []
        if isinstance(tree, Write):
            made = [line for node in self.words.making(tree) for line in self.make(node)]
            written = [self.assign(name, self.words.image(tree, name)) for name in tree.columns]
            again = [line for name in tree.columns for line in self.ask_again(name, tree)] if self.ask_again else []
            return [f"{pad}{line}" for line in (*made, *written, *again)]
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
        compiler, columns = self.words.compiler, self.words.sync.columns
        values = {
            name: compiler.image(image, columns[name], self.words.new)
            for name, image in judged(condition).items()
            if not compiler.is_stored_whole(image, columns[name])
        }
        if not values:
            return self._decision(tree, depth)
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
        marks = bool(self.mark) and isinstance(tree.condition, (Changed, Unsynced))
        inner = replace(self, mark="") if marks else self
        then, otherwise = inner.lines(tree.then, depth + 1), self.lines(tree.otherwise, depth + 1)
        if marks:
            then.append(f"{pad}  {self.mark}")
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


def _postgresql(
    sync: Sync, compiler: Compiler, *, row: str, function: str, default_schema: str | None
) -> list[TriggerText]:
    """``row`` is the form of a reference: ``{}.`` or ``({}).``, CockroachDB's."""
    quote = compiler.quote
    words = _Words(
        sync=sync,
        compiler=compiler,
        new=lambda name: f"{row.format('NEW')}{quote(name)}",
        old=lambda name: f"{row.format('OLD')}{quote(name)}",
        variables=True,
    )

    def make(node: Lookup) -> list[str]:
        names, values = compiler.making(node, words.new)
        matched = [quote(match.name) for match in node.matches]
        # An update of nothing: the row that another transaction makes at the same moment is waited for, and stays.
        kept = f"DO UPDATE SET {matched[0]} = cf_row.{matched[0]}"
        return [
            f"IF {compiler.is_given(node, words.new)} AND NOT {compiler.is_there(node, words.new, stays=True)} THEN",
            f"  INSERT INTO {compiler.table(node.table, node.schema)} AS cf_row ({names}) VALUES ({values})",
            f"    ON CONFLICT ({', '.join(matched)}) {kept};",
            "END IF;",
        ]

    def ask_again(name: str, write: Write) -> list[str]:
        image = write.group.forward.get(name) if write.side == "new" else None
        if not isinstance(image, Lookup) or image.made is not None:
            return []
        new = words.new(name)
        if image.fills:  # the row is there, by a foreign key: it can be waited for
            patient = replace(words, compiler=compiler.waiting())
            return [
                f"IF {new} IS NULL AND {compiler.is_given(image, words.new)} THEN",
                f"  {new} := {patient.image(write, name)};",
                "END IF;",
            ]
        lock = natural_lock(image.table, [words.new(column) for column in image.given])
        return [
            f"IF {new} IS NULL AND {compiler.is_given(image, words.new)} THEN",
            f"  PERFORM pg_advisory_xact_lock_shared({lock});",
            f"  {new} := {words.image(write, name)};",
            "END IF;",
        ]

    before = _Before(
        words=words,
        assign=lambda name, value: f"NEW.{quote(name)} := {value};",
        assign_variable=lambda name, value: f"{name} := {value};",
        make=make,
        ask_again=ask_again,
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
    qualified = compiler.table(function, sync.schema)
    create = f"CREATE FUNCTION {qualified}() RETURNS trigger LANGUAGE plpgsql AS {quoted_body(lines)}"
    if sync.looks_up:
        create = definer_function(compiler, function, sync.schema or default_schema, lines)
    table = compiler.table(sync.table, sync.schema)
    changed = words.condition(Changed(columns=sync.synced.columns))
    new_marker, old_marker = words.new(sync.marker), words.old(sync.marker)
    when = f"{new_marker} IS NOT DISTINCT FROM {old_marker} AND ({old_marker} IS NULL OR {changed})"
    if sync.looks_up:
        when = f"({when}) OR {new_marker} = {TOUCHED}"
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


def _asks_unsynced(tree: Tree) -> bool:
    """Whether the tree comes to every row that no side of changed, and asks whether it was ever synced."""
    while isinstance(tree, If) and isinstance(tree.condition, Changed):
        tree = tree.otherwise
    return isinstance(tree, If) and isinstance(tree.condition, Unsynced) and tree.otherwise is None


def _mysql(sync: Sync, compiler: Compiler) -> list[TriggerText]:
    quote = compiler.quote
    words = _Words(
        sync=sync,
        compiler=compiler,
        new=lambda name: f"NEW.{quote(name)}",
        old=lambda name: f"OLD.{quote(name)}",
        variables=True,
    )

    def make(node: Lookup) -> list[str]:
        names, values = compiler.making(node, words.new)
        kept = quote(node.matches[0].name)
        message = f"a row of {node.table} like the one to be made for a row of {sync.table} is there already"
        # The first look takes no lock: of two that find nothing, each would keep the other from making it. The last one
        # tells a row of the same natural key from one that is alike by another key: the server does not.
        return [
            f"IF {compiler.is_given(node, words.new)} AND NOT {compiler.is_there(node, words.new, stays=False)} THEN",
            f"  INSERT INTO {compiler.table(node.table, node.schema)} ({names}) VALUES ({values})",
            f"    ON DUPLICATE KEY UPDATE {kept} = {kept};",
            f"  IF NOT {compiler.is_there(node, words.new, stays=True)} THEN",
            f"    SIGNAL SQLSTATE '23000' SET MYSQL_ERRNO = 1062, MESSAGE_TEXT = {_message(message)};",
            "  END IF;",
            "END IF;",
        ]

    before = _Before(
        words=words,
        assign=lambda name, value: f"SET NEW.{quote(name)} = {value};",
        assign_variable=None,
        make=make,
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
    trees = [update_tree(sync, group) for group in sync.groups]
    if len(trees) == 1 and _asks_unsynced(trees[0]):
        decided = replace(before, mark=f"SET NEW.{marker} = 1;").lines(trees[0], 2)
    else:
        decided = [line for tree in trees for line in before.lines(tree, 2)]
        decided.append(f"    IF OLD.{marker} IS NULL THEN SET NEW.{marker} = 1; END IF;")
    touched = f" OR NEW.{marker} = {TOUCHED}" if sync.looks_up else ""
    update = [f"  IF NEW.{marker} <=> OLD.{marker}{touched} THEN", *decided, "  END IF;"]
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
            message = plain_literal(f"NOT NULL constraint failed: {sync.table}.{name}")
            value = f"COALESCE({value}, RAISE(ABORT, {message}))"
        texts.append(f"{words.compiler.quote(name)} = {value}")
    return texts


def _makings(trees: list[Tree], words: _Words) -> list[str]:
    """The statements that make what lookups do not find. One writer at a time: a look is enough."""
    compiler = words.compiler
    statements = []
    for tree in trees:
        for write, condition in _writes(tree, words):
            for node in words.making(write):
                names, values = compiler.making(node, words.new)
                asked = f"{condition} AND {compiler.is_given(node, words.new)}"
                statements.append(
                    f"INSERT INTO {compiler.table(node.table, node.schema)} ({names}) SELECT {values}"
                    f" WHERE {asked} AND NOT {compiler.is_there(node, words.new, stays=False)};"
                )
    return statements


def _writes(tree: Tree, words: _Words, path: tuple[str, ...] = ()) -> Iterator[tuple[Write, str]]:
    """Each write that a tree may come to, and when it does."""
    if isinstance(tree, Write):
        yield tree, _all(list(path)) if path else "1"
    elif isinstance(tree, Fill):
        yield from _writes(tree.then, words, path)
    elif isinstance(tree, If):
        condition = words.condition(tree.condition)
        yield from _writes(tree.then, words, (*path, f"({condition})"))
        yield from _writes(tree.otherwise, words, (*path, f"NOT ({condition})"))


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
                *(f"  {statement}" for statement in _makings(trees, words)),
                f"  UPDATE {table} SET\n    {assignments}\n  WHERE {where};",
                "END",
            ]
        )

    changed = words.condition(Changed(columns=sync.synced.columns))
    asked = f"NEW.{marker} IS OLD.{marker} AND (OLD.{marker} IS NULL OR {changed})"
    when = f"WHEN ({asked}) OR NEW.{marker} = {TOUCHED} " if sync.looks_up else f"WHEN {asked} "
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


def _message(text: str) -> str:
    """A message as a literal: at most 128 characters (manual, SIGNAL), of which none depends on the session's mode."""
    return plain_literal(text[:120].replace("\\", ""))


def _key(name: str, quote: Callable[[str], str]) -> str:
    return name if name == "_rowid_" else quote(name)


# --- the surface ------------------------------------------------------------------------------------------------------


def trigger_statements(
    sync: Sync,
    product: str,
    compiler: Compiler,
    *,
    without_rowid: bool = False,
    default_schema: str | None = None,
) -> list[TriggerText]:
    """The triggers of a sync, the UPDATE trigger first.

    That order matters where DDL commits by itself: an INSERT trigger alone would mark rows as synced whose
    later UPDATEs nobody follows.
    ``without_rowid`` says that an SQLite table has none. ``default_schema`` is where PostgreSQL finds tables without a
    schema.
    """
    compiler = compiler.in_triggers()
    if product == "sqlite":
        return _sqlite(sync, compiler, without_rowid=without_rowid)
    if product in ("mysql", "mariadb"):
        return _mysql(sync, compiler)
    row = "({})." if product == "cockroachdb" else "{}."
    function = function_name(sync, product)
    return _postgresql(sync, compiler, row=row, function=function, default_schema=default_schema)


def disagreement(sync: Sync, group: Group, compiler: Compiler) -> str:
    """The condition on a table's row under which a group's sides agree in neither direction; false if it cannot be."""
    found = [
        _agreement(sync, group, side, compiler)
        for side, deterministic in (("new", group.forward_deterministic), ("old", group.backward_deterministic))
        if deterministic
    ]
    if compiler.true in found:
        return compiler.false if compiler.false != "0" else "(1 = 0)"
    return f"NOT ({' OR '.join(found)})"


def _agreement(sync: Sync, group: Group, direction: str, compiler: Compiler) -> str:
    """Whether the images in one direction equal what is stored; true of no images."""
    images = group.forward if direction == "new" else group.backward
    parts = [
        compiler.same(
            compiler.quote(name),
            compiler.coerced(compiler.image(image, sync.columns[name], compiler.quote), sync.columns[name]),
            sync.columns[name].type,
        )
        for name, image in images.items()
        if name not in group.once
    ]
    return _all([f"({part})" for part in parts]) if parts else compiler.true


def forgotten(sync: Sync, group: Group, compiler: Compiler) -> str:
    """The condition on a row whose old columns hold what the row that the new one refers to does not; or false.

    The sync takes the two sides for alike if the other table's unique key does, or finds nothing: contract would lose
    the difference.
    """
    if group.lossy or not any(isinstance(image, Lookup) for image in group.backward.values()):
        return "(1 = 0)"
    return f"NOT ({_agreement(sync, group, 'old', compiler)})"
