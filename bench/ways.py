"""Other ways to carry the same upgrade out, as SQL by phase: what people do who do not have Contraflow.

``plain``: an ordinary Alembic revision, run while the old release serves. ``by hand``: expand and contract as runbooks
describe them, without triggers. ``triggers``: the same with triggers as one writes them in an afternoon; Keystone's of
2017 (its migration 014) worked like this: fill on INSERT, compute anew on UPDATE. ``pgroll``: the statements that
pgroll's source generates for this change, in its order, each in a transaction of its own; its new release reads through
views and is told from the old one by its ``search_path``. They are replayed here: pgroll itself is not run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["BACKFILL", "PGROLL_SCHEMA", "WAYS", "Script", "statements"]

PGROLL_SCHEMA = "public_new"

WAYS: Mapping[str, Sequence[str]] = {
    "plain": ("postgresql", "mariadb", "mysql"),
    "by hand": ("postgresql", "mariadb", "mysql"),
    "triggers": ("postgresql", "mariadb", "mysql"),
    "pgroll": ("postgresql",),
}
"""Each way, and the products that it is written for."""

BACKFILL = "backfill "
"""What a statement begins with that is repeated until it changes no row."""

Script = Mapping[str, Sequence[str]]


def statements(way: str, product: str, scene: str) -> Script:
    """Verb to statements, each a transaction of its own; a verb that is not there does nothing."""
    found = _PGROLL[scene] if way == "pgroll" else _SCRIPTS[way](_Words(product, scene))
    return {verb: [" ".join(statement.split()) for statement in listed] for verb, listed in found.items()}


class _Words:
    """One change in one product's SQL. ``f`` are the new columns' values of the old one, ``g`` the other way round."""

    def __init__(self, product: str, scene: str) -> None:
        self.postgresql = product == "postgresql"
        self.split = scene == "split"
        self.new = ("first_name", "last_name") if self.split else ("display_name",)

    def f(self, old: str) -> tuple[str, ...]:
        if not self.split:
            return (old,)
        if self.postgresql:
            rest = f"CASE WHEN strpos({old}, ' ') = 0 THEN '' ELSE substr({old}, strpos({old}, ' ') + 1) END"
            return f"split_part({old}, ' ', 1)", rest
        return (
            f"substring_index({old}, ' ', 1)",
            f"IF(locate(' ', {old}) = 0, '', substr({old}, locate(' ', {old}) + 1))",
        )

    def g(self, row: str) -> str:
        if not self.split:
            return f"{row}.display_name"
        return f"substr(trim(concat({row}.first_name, ' ', {row}.last_name)), 1, 200)"

    @property
    def add(self) -> str:
        return "ALTER TABLE users " + ", ".join(f"ADD COLUMN {name} varchar(200)" for name in self.new)

    @property
    def relax(self) -> str:
        change = "ALTER COLUMN full_name DROP NOT NULL" if self.postgresql else "MODIFY full_name varchar(200) NULL"
        return f"ALTER TABLE users {change}"

    @property
    def fill(self) -> str:
        values = ", ".join(f"{name} = {value}" for name, value in zip(self.new, self.f("full_name"), strict=True))
        return f"UPDATE users SET {values} WHERE {self.new[0]} IS NULL"

    @property
    def tighten(self) -> str:
        form = "ALTER COLUMN {} SET NOT NULL" if self.postgresql else "MODIFY {} varchar(200) NOT NULL"
        return "ALTER TABLE users " + ", ".join(form.format(name) for name in self.new)


_DROP = "ALTER TABLE users DROP COLUMN full_name"


def _plain(words: _Words) -> Script:
    if not words.split:
        return {"migrate": ["ALTER TABLE users RENAME COLUMN full_name TO display_name"]}
    return {"migrate": [words.add, words.fill, words.tighten, _DROP]}


def _by_hand(words: _Words) -> Script:
    return {
        "expand": [words.add, words.relax],
        "migrate": [words.fill],
        "contract": [words.fill, words.tighten, _DROP],  # filled again: the old release has written since
    }


def _triggers(words: _Words) -> Script:
    new, values = words.new, words.f("NEW.full_name")
    forward = " ".join(
        f"{'' if words.postgresql else 'SET '}NEW.{name} {':' if words.postgresql else ''}= {value};"
        for name, value in zip(new, values, strict=True)
    )
    backward = f"{'' if words.postgresql else 'SET '}NEW.full_name {':' if words.postgresql else ''}= {words.g('NEW')};"
    if words.postgresql:
        changed = " OR ".join(f"NEW.{name} IS DISTINCT FROM OLD.{name}" for name in new)
        install = [
            f"""CREATE FUNCTION users_sync() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF TG_OP = 'INSERT' THEN
              IF NEW.full_name IS NULL THEN {backward} ELSIF NEW.{new[0]} IS NULL THEN {forward} END IF;
            ELSIF {changed} THEN {backward} ELSE {forward} END IF;
            RETURN NEW; END $$""",
            "CREATE TRIGGER users_sync BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION users_sync()",
        ]
        remove = ["DROP TRIGGER users_sync ON users", "DROP FUNCTION users_sync"]
    else:
        changed = " OR ".join(f"NOT (NEW.{name} <=> OLD.{name})" for name in new)
        install = [
            f"""CREATE TRIGGER users_insert BEFORE INSERT ON users FOR EACH ROW BEGIN
            IF NEW.full_name IS NULL THEN {backward} ELSEIF NEW.{new[0]} IS NULL THEN {forward} END IF; END""",
            f"""CREATE TRIGGER users_update BEFORE UPDATE ON users FOR EACH ROW BEGIN
            IF {changed} THEN {backward} ELSE {forward} END IF; END""",
        ]
        remove = ["DROP TRIGGER users_insert", "DROP TRIGGER users_update"]
    return {
        "expand": [words.add, words.relax, *install],
        "migrate": [words.fill],
        "contract": [words.tighten, *remove, _DROP],
    }


_SCRIPTS = {"plain": _plain, "by hand": _by_hand, "triggers": _triggers}


def _view(columns: str) -> list[str]:
    return [
        f"CREATE SCHEMA {PGROLL_SCHEMA}",
        f"CREATE VIEW {PGROLL_SCHEMA}.users AS SELECT id, age, {columns} FROM public.users",
        f"CREATE VIEW {PGROLL_SCHEMA}.alembic_version AS SELECT * FROM public.alembic_version",
    ]


def _pgroll_trigger(column: str, condition: str, value: str) -> list[str]:
    name = f"_pgroll_trigger_users_{column}"
    return [
        f"""CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE search_path text;
        BEGIN
          SELECT current_setting INTO search_path FROM current_setting('search_path');
          IF search_path {condition} '{PGROLL_SCHEMA}' THEN
            NEW.{column} = {value}; NEW._pgroll_needs_backfill = false;
          END IF;
          RETURN NEW;
        END $$""",
        f"CREATE OR REPLACE TRIGGER {name} BEFORE UPDATE OR INSERT ON users FOR EACH ROW EXECUTE FUNCTION {name}()",
    ]


_NEW = ("first_name", "last_name")
_UP = dict(zip(_NEW, _Words("postgresql", "split").f("NEW.full_name"), strict=True))

_PGROLL: Mapping[str, Script] = {
    "rename": {
        "expand": _view("full_name AS display_name"),
        "contract": ["ALTER TABLE users RENAME COLUMN full_name TO display_name"],
    },
    "split": {
        "expand": [
            *(
                statement
                for name in _NEW
                for statement in (
                    f"ALTER TABLE users ADD COLUMN _pgroll_new_{name} varchar(200)",
                    f"ALTER TABLE users ADD CONSTRAINT {name}_filled CHECK (_pgroll_new_{name} IS NOT NULL) NOT VALID",
                )
            ),
            *_view("_pgroll_new_first_name AS first_name, _pgroll_new_last_name AS last_name"),
            "ALTER TABLE users ADD COLUMN _pgroll_needs_backfill boolean DEFAULT true",
            *(s for name in _NEW for s in _pgroll_trigger(f"_pgroll_new_{name}", "!=", _UP[name])),
            *_pgroll_trigger(
                "full_name",
                "=",
                "substr(trim(concat(NEW._pgroll_new_first_name, ' ', NEW._pgroll_new_last_name)), 1, 200)",
            ),
        ],
        "migrate": [
            f"""{BACKFILL}WITH batch AS (SELECT id FROM users WHERE _pgroll_needs_backfill = true
            ORDER BY id LIMIT 1000 FOR NO KEY UPDATE)
            UPDATE users SET id = users.id FROM batch WHERE users.id = batch.id"""
        ],
        "contract": [
            *(
                statement
                for name in _NEW
                for statement in (
                    f"DROP FUNCTION _pgroll_trigger_users__pgroll_new_{name} CASCADE",
                    f"ALTER TABLE users VALIDATE CONSTRAINT {name}_filled",
                    f"ALTER TABLE users ALTER COLUMN _pgroll_new_{name} SET NOT NULL",
                    f"ALTER TABLE users DROP CONSTRAINT {name}_filled",
                    f"ALTER TABLE users RENAME COLUMN _pgroll_new_{name} TO {name}",
                )
            ),
            "ALTER TABLE users DROP COLUMN full_name",
            "DROP FUNCTION _pgroll_trigger_users_full_name CASCADE",
            "ALTER TABLE users DROP COLUMN _pgroll_needs_backfill",
        ],
    },
}
