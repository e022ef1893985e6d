"""Every operation on every server is decided, and the documentation says how."""

from __future__ import annotations

import inspect
from pathlib import Path

import contraflow
from contraflow.dialects import for_profile
from tests.operations.cells import EXAMPLES, PROFILES, cell, phases, server, statements, table

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def test_every_operation_is_in_the_table() -> None:
    public = {
        name
        for name, value in vars(contraflow).items()
        if inspect.isclass(value) and value.__module__.startswith("contraflow.operations.") and hasattr(value, "plan")
    }
    assert public == {type(operation).__name__ for operation in EXAMPLES}


def test_the_documentation_holds_the_table() -> None:
    assert table() in PAGE.read_text(encoding="utf-8"), "python -m tests.operations.cells prints it"


def test_a_cell_says_what_is_sent() -> None:
    for profile in PROFILES:
        adapter = for_profile(profile)
        for operation in EXAMPLES:
            how = cell(operation, adapter)
            if how == "refused":
                continue
            planned = phases(operation, adapter)
            sent = list(statements(adapter, (*planned.expand, *planned.migrate, *planned.contract)))
            assert bool(sent) is (how != "nothing to do"), f"{operation} on {server(profile)}"
            triggers = any(" TRIGGER " in statement.sql for statement in sent)
            assert triggers is how.startswith("trigger")


def test_cockroachdb() -> None:
    adapter = for_profile(PROFILES[1])
    sent: dict[tuple[str, str], list[str]] = {}
    for operation in EXAMPLES:
        if (
            not type(operation).__module__.endswith((".constraints", ".indexes"))
            or cell(operation, adapter) == "refused"
        ):
            continue
        planned = phases(operation, adapter)
        for name in ("migrate", "contract", "rollback"):
            if texts := [statement.sql for statement in statements(adapter, getattr(planned, name))]:
                sent.setdefault((type(operation).__name__, name), []).extend(texts)
    create, drop = 'CREATE INDEX "ix_users_street" ON "users" ("street")', 'DROP INDEX "users"@'
    unique = 'CREATE UNIQUE INDEX "uq_users_street" ON "users" ("street")'
    alter = 'ALTER TABLE "users"'
    assert sent == {
        ("CreateIndex", "migrate"): [
            create,
            'CREATE INDEX "ix_users_lower" ON "users" ((lower(street)))',
            'CREATE INDEX "ix_users_some" ON "users" ("street") WHERE realm = 1',
        ],
        ("CreateIndex", "rollback"): [
            f'{drop}"{name}"' for name in ("ix_users_street", "ix_users_lower", "ix_users_some")
        ],
        ("DropIndex", "contract"): [f'{drop}"ix_users_zone"'],
        ("AddUnique", "contract"): [unique],
        ("AddUnique", "rollback"): [f'{drop}"uq_users_street" CASCADE'],
        ("DropUnique", "contract"): [f'{drop}"uq_users_mail" CASCADE'],
        ("AddForeignKey", "contract"): [
            f'{alter} ADD CONSTRAINT "fk_users_realm" FOREIGN KEY ("realm") REFERENCES "realms" ("id") NOT VALID',
            f'{alter} VALIDATE CONSTRAINT "fk_users_realm"',
        ],
        ("AddForeignKey", "rollback"): [f'{alter} DROP CONSTRAINT "fk_users_realm"'],
        ("DropForeignKey", "contract"): [f'{alter} DROP CONSTRAINT "fk_users_group"'],
        ("AddCheck", "contract"): [
            f'{alter} ADD CONSTRAINT "ck_users_street" CHECK (((char_length((CAST("street" AS text)))) > 0)) NOT VALID',
            f'{alter} VALIDATE CONSTRAINT "ck_users_street"',
        ],
        ("AddCheck", "rollback"): [f'{alter} DROP CONSTRAINT "ck_users_street"'],
        ("DropCheck", "contract"): [f'{alter} DROP CONSTRAINT "ck_users_zone"'],
    }
