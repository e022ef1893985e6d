"""The examples 28 to 56."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ExcludeConstraint

from contraflow import (
    AddCheck,
    AddColumn,
    AddForeignKey,
    AddUnique,
    ChangeComment,
    ChangeDefault,
    ChangeType,
    CreateIndex,
    DropCheck,
    LoosenNotNull,
)
from contraflow.expressions import concat, length, substr, to_text
from tests.operations.pgroll.example import (
    FRUITS,
    PEOPLE,
    PLAIN,
    POSTS,
    SELLERS,
    SHOWN,
    TICKET,
    TICKETS,
    UNTIL,
    Example,
    constraints,
    index,
    made,
    serial,
    text,
)

LATE = (
    Example(
        name="28_different_defaults",
        title="a table with a text, a number and the present time as defaults",
        verdict="expressed",
        reason="",
        operations=lambda: [
            made(
                "items",
                serial(),
                text("name", default="unnamed"),
                sa.Column("price", sa.Numeric(10, 2), nullable=False, server_default="0.00"),
                sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
            )
        ],
        meanwhile=["INSERT INTO items DEFAULT VALUES"],
        end={"SELECT name, price::text, created_at <= now() FROM items": [("unnamed", "0.00", True)]},
    ),
    Example(
        name="29_set_replica_identity",
        title="an index becomes a table's replica identity",
        verdict="plain revision",
        reason=PLAIN,
    ),
    Example(
        name="30_add_column_simple_up",
        title="a NOT NULL column with a comment, and a constant for the rows that are there",
        verdict="expressed",
        reason="",
        operations=lambda: [
            AddColumn(table="people", column=text("description", comment="who it is"), value=lambda _row: "none yet")
        ],
        setup=[PEOPLE.format(""), "INSERT INTO people (id, name) VALUES (1, 'Ada')"],
        old=["INSERT INTO people (id, name) VALUES (2, 'Bob')"],
        meanwhile=["UPDATE people SET description = 'b' WHERE id = 2", "UPDATE people SET name = 'Bo' WHERE id = 2"],
        end={
            "SELECT description FROM people ORDER BY id": [("none yet",), ("b",)],
            "SELECT col_description('people'::regclass, 3)": [("who it is",)],
        },
    ),
    Example(
        name="31_unset_not_null",
        title="a column may hold NULLs; the old release reads a placeholder",
        verdict="expressed otherwise",
        reason="Under its own name the old release has to bear reading NULLs; the placeholder is what rollback writes.",
        operations=lambda: [LoosenNotNull(table="posts", column="title", value=lambda _row: "untitled")],
        setup=[POSTS.format("", "")],
        old=["INSERT INTO posts (title) VALUES ('news')"],
        meanwhile=["INSERT INTO posts (title) VALUES (NULL)", "UPDATE posts SET user_id = 1"],
        end={"SELECT title FROM posts ORDER BY id": [("news",), (None,)]},
    ),
    Example(
        name="32_sql_on_complete",
        title="a column is added in raw SQL at the very end",
        verdict="expressed better",
        reason="Declared, so it can be rolled back, and the new release has it while the old one still runs.",
        operations=lambda: [AddColumn(table="people", column=sa.Column("birth_date", sa.DateTime()))],
        setup=[PEOPLE.format("")],
        old=["INSERT INTO people (id, name) VALUES (1, 'Ada')"],
        meanwhile=[
            "UPDATE people SET birth_date = '1815-12-10' WHERE id = 1",
            "UPDATE people SET name = 'Ida' WHERE id = 1",
        ],
        end={"SELECT name, birth_date::text FROM people": [("Ida", "1815-12-10 00:00:00")]},
    ),
    Example(
        name="33_rename_check_constraint",
        title="a check gets another name",
        verdict="expressed otherwise",
        reason="As a check that comes and one that goes, so the rows are read once; or plain"
        " `ALTER TABLE … RENAME CONSTRAINT` in a revision of its own, which reads none.",
        operations=lambda: [
            DropCheck(table="people", name="name_length"),
            AddCheck(
                table="people",
                name="name_length_check",
                columns=["name"],
                condition=lambda row: length(row["name"]) > 3,
            ),
        ],
        setup=[PEOPLE.format(" CONSTRAINT name_length CHECK (length(name) > 3)")],
        old=["INSERT INTO people (id, name) VALUES (1, 'Hans')"],
        meanwhile=["INSERT INTO people (id, name) VALUES (2, 'Anna')"],
        end={constraints("people"): [("name_length_check", "c", True)]},
        refused=["INSERT INTO people (id, name) VALUES (3, 'Ada')"],
    ),
    Example(
        name="34_create_events_table",
        title="a table with a NULLable column that has a default and a comment",
        verdict="expressed",
        reason="",
        operations=lambda: [
            made("events", serial(), text("name", nullable=True, default="<none>", comment="its name"))
        ],
        meanwhile=["INSERT INTO events DEFAULT VALUES", "INSERT INTO events (name) VALUES (NULL)"],
        end={"SELECT name FROM events ORDER BY id": [("<none>",), (None,)]},
    ),
    Example(
        name="35_alter_column_multiple",
        title="one column gets a type, a default, NOT NULL, a comment, a unique constraint and a check at once",
        verdict="expressed otherwise",
        reason="All at once under a new name; under its own name type and NOT NULL take an upgrade each (`CF116`).",
        operations=lambda: [
            ChangeType(
                table="events",
                column="name",
                new=sa.Column("title", sa.Text(), nullable=False, server_default="unknown", comment="its whole name"),
                forward=lambda row: sa.case((length(row["name"]) > 3, row["name"]), else_="placeholder"),
                backward=lambda row: substr(row["title"], 1, 255),
                lossy=True,
                omitted="new",
            ),
            AddUnique(table="events", name="events_title_unique", columns=["title"]),
            AddCheck(
                table="events",
                name="event_title_length",
                columns=["title"],
                condition=lambda row: length(row["title"]) > 3,
            ),
        ],
        setup=["CREATE TABLE events (id serial PRIMARY KEY, name varchar(255) DEFAULT '<none>')"],
        old=["INSERT INTO events (name) VALUES ('fair'), ('ab')"],
        meanwhile=["INSERT INTO events (title) VALUES ('concert')", "UPDATE events SET name = 'fairs' WHERE id = 1"],
        seen={
            "SELECT name, title FROM events ORDER BY id": [
                ("fairs", "fairs"),
                ("ab", "placeholder"),
                ("concert", "concert"),
            ]
        },
        end={
            "SELECT title FROM events ORDER BY id": [("fairs",), ("placeholder",), ("concert",)],
            constraints("events"): [("event_title_length", "c", True), ("events_title_unique", "u", True)],
            "SELECT col_description('events'::regclass, 3)": [("its whole name",)],
        },
        refused=["INSERT INTO events (title) VALUES ('ab')", "INSERT INTO events (title) VALUES ('fairs')"],
    ),
    Example(
        name="36_set_comment_to_null",
        title="a column's comment goes",
        verdict="expressed",
        reason="At contract: comments mean nothing to either release.",
        operations=lambda: [ChangeComment(table="posts", column="title", comment=None)],
        setup=[POSTS.format("", ""), "COMMENT ON COLUMN posts.title IS 'its title'"],
        old=["INSERT INTO posts (title) VALUES ('news')"],
        meanwhile=["UPDATE posts SET title = 'more news'"],
        end={"SELECT col_description('posts'::regclass, 2)": [(None,)]},
    ),
    Example(
        name="37_create_partial_index",
        title="an index over the rows that fulfil a condition",
        verdict="expressed",
        reason="",
        operations=lambda: [
            CreateIndex(table="fruits", name="idx_fruits_id_gt_10", columns=["id"], where=sa.text("id > 10"))
        ],
        setup=[FRUITS.format("")],
        old=["INSERT INTO fruits (name) VALUES ('apple')"],
        meanwhile=["INSERT INTO fruits (name) VALUES ('pear')"],
        end={
            index("idx_fruits_id_gt_10"): [
                ("CREATE INDEX idx_fruits_id_gt_10 ON public.fruits USING btree (id) WHERE (id > 10)",)
            ]
        },
    ),
    Example(
        name="38_create_hash_index_with_fillfactor",
        title="a hash index with a storage parameter",
        verdict="expressed",
        reason="",
        operations=lambda: [
            CreateIndex(
                table="fruits", name="idx_fruits_name", columns=["name"], using="hash", storage={"fillfactor": 70}
            )
        ],
        setup=[FRUITS.format("")],
        old=["INSERT INTO fruits (name) VALUES ('apple')"],
        meanwhile=["INSERT INTO fruits (name) VALUES ('pear')"],
        end={
            index("idx_fruits_name"): [
                ("CREATE INDEX idx_fruits_name ON public.fruits USING hash (name) WITH (fillfactor='70')",)
            ]
        },
    ),
    Example(
        name="39_add_column_with_multiple_pk_in_table",
        title="a NOT NULL column with a default, on a table whose key has two columns",
        verdict="expressed",
        reason="",
        operations=lambda: [
            AddColumn(table="sellers", column=sa.Column("rating", sa.Integer, nullable=False, server_default="10"))
        ],
        setup=SELLERS,
        old=["INSERT INTO sellers (name, zip) VALUES ('alice', 2)"],
        meanwhile=["UPDATE sellers SET rating = 7 WHERE zip = 2", "UPDATE sellers SET description = 'x'"],
        end={"SELECT name, zip, rating FROM sellers ORDER BY 1, 2": [("alice", 1, 10), ("alice", 2, 7), ("bob", 2, 7)]},
    ),
    Example(
        name="40_create_enum_type",
        title="an enumerated type is created in raw SQL",
        verdict="plain revision",
        reason="`CREATE TYPE` in an earlier revision.",
    ),
    Example(
        name="41_add_enum_column",
        title="a NOT NULL column of the enumerated type, with a default",
        verdict="expressed",
        reason="The type must exist before.",
        operations=lambda: [
            AddColumn(
                table="fruits",
                column=sa.Column(
                    "size",
                    sa.Enum("small", "medium", "large", name="fruit_size"),
                    nullable=False,
                    server_default="small",
                ),
            )
        ],
        setup=[
            "CREATE TYPE fruit_size AS ENUM ('small', 'medium', 'large')",
            FRUITS.format(""),
            "INSERT INTO fruits (name) VALUES ('fig')",
        ],
        old=["INSERT INTO fruits (name) VALUES ('kiwi')"],
        meanwhile=["UPDATE fruits SET size = 'medium' WHERE name = 'kiwi'", "UPDATE fruits SET name = upper(name)"],
        end={"SELECT name, size::text FROM fruits ORDER BY id": [("FIG", "small"), ("KIWI", "medium")]},
        refused=["UPDATE fruits SET size = 'huge'"],
    ),
    Example(
        name="42_create_unique_index",
        title="a unique index, on a column that is unique already",
        verdict="expressed",
        reason="It is built by `migrate`, since the old constraint implies it.",
        operations=lambda: [CreateIndex(table="fruits", name="idx_fruits_unique_name", columns=["name"], unique=True)],
        setup=[FRUITS.format(" UNIQUE")],
        old=["INSERT INTO fruits (name) VALUES ('fig')"],
        meanwhile=["INSERT INTO fruits (name) VALUES ('kiwi')"],
        seen={
            index("idx_fruits_unique_name"): [
                ("CREATE UNIQUE INDEX idx_fruits_unique_name ON public.fruits USING btree (name)",)
            ]
        },
        refused=["INSERT INTO fruits (name) VALUES ('kiwi')"],
    ),
    Example(
        name="43_create_tickets_table",
        title="a table whose key has a name of its own",
        verdict="expressed",
        reason="",
        operations=lambda: [
            made(
                "tickets",
                sa.Column("ticket_id", sa.Integer, primary_key=True),
                text("sellers_name"),
                sa.Column("sellers_zip", sa.Integer, nullable=False),
                text("ticket_type", default="paper"),
            )
        ],
        meanwhile=[TICKET + "('alice', 1)"],
        end={"SELECT ticket_id, ticket_type FROM tickets": [(1, "paper")]},
    ),
    Example(
        name="44_add_table_unique_constraint",
        title="a unique constraint over two columns; no value changes",
        verdict="expressed otherwise",
        reason="No write of the old release is refused because of it. " + SHOWN,
        operations=lambda: [
            AddUnique(table="tickets", name="unique_zip_name", columns=["sellers_name", "sellers_zip"])
        ],
        setup=[TICKETS.format("")],
        old=[TICKET + "('alice', 1), ('alice', 2)"],
        meanwhile=[TICKET + "('alice', 1)"],
        obstacle="CF014: ",
        mend=["DELETE FROM tickets WHERE ticket_id = 3"],
        end={constraints("tickets"): [("unique_zip_name", "u", True)]},
        refused=[TICKET + "('alice', 1)"],
    ),
    Example(
        name="45_add_table_check_constraint",
        title="a check over two columns; numbers that violate it are replaced",
        verdict="expressed otherwise",
        reason=SHOWN,
        operations=lambda: [
            AddCheck(
                table="tickets",
                name="check_zip_name",
                columns=["sellers_name", "sellers_zip"],
                condition=lambda row: sa.or_(row["sellers_name"] == "alice", row["sellers_zip"] > 0),
            )
        ],
        setup=[TICKETS.format("")],
        old=[TICKET + "('alice', 0), ('bob', 0)"],
        meanwhile=[TICKET + "('bob', 1)"],
        obstacle="CF016: .*check_zip_name",
        mend=["UPDATE tickets SET sellers_zip = 123 WHERE ticket_id = 2"],
        end={constraints("tickets"): [("check_zip_name", "c", True)]},
        refused=[TICKET + "('bob', 0)"],
    ),
    Example(
        name="46_alter_column_drop_default",
        title="a NOT NULL column's default goes",
        verdict="expressed",
        reason="At contract: the old release counts on it, the new one always says a value.",
        operations=lambda: [ChangeDefault(table="tickets", column="ticket_type", default=None)],
        setup=[TICKETS.format("")],
        old=[TICKET + "('alice', 1)"],
        meanwhile=[
            TICKET + "('bob', 1)",
            "INSERT INTO tickets (sellers_name, sellers_zip, ticket_type) VALUES ('ida', 1, 'print')",
        ],
        end={"SELECT ticket_type FROM tickets ORDER BY ticket_id": [("paper",), ("paper",), ("print",)]},
        refused=[TICKET + "('bob', 1)"],
    ),
    Example(
        name="47_add_table_foreign_key_constraint",
        title="a foreign key over two columns; no value changes",
        verdict="expressed otherwise",
        reason="No write of the old release is refused because of it. " + SHOWN,
        operations=lambda: [
            AddForeignKey(
                table="tickets",
                name="fk_sellers",
                columns=["sellers_name", "sellers_zip"],
                target="sellers",
                target_columns=["name", "zip"],
            )
        ],
        setup=[*SELLERS, TICKETS.format("")],
        old=[TICKET + "('alice', 1), ('alice', 2)"],
        meanwhile=[TICKET + "('bob', 2)"],
        obstacle="CF016: .*fk_sellers",
        mend=["UPDATE tickets SET sellers_zip = 1 WHERE ticket_id = 2"],
        end={constraints("tickets"): [("fk_sellers", "f", True)]},
        refused=[TICKET + "('bob', 1)"],
    ),
    Example(
        name="48_drop_tickets_check",
        title="the check over two columns goes; no value changes",
        verdict="expressed otherwise",
        reason=UNTIL,
        operations=lambda: [DropCheck(table="tickets", name="check_zip_name")],
        setup=[
            TICKETS.format(", CONSTRAINT check_zip_name CHECK (sellers_name = 'alice' OR sellers_zip > 0)"),
        ],
        old=[TICKET + "('alice', 0)"],
        meanwhile=[TICKET + "('bob', 1)"],
        end={constraints("tickets"): []},
    ),
    Example(
        name="49_unset_not_null_on_indexed_column",
        title="a column under a unique constraint and an index may hold NULLs",
        verdict="expressed otherwise",
        reason="The column, with all that stands on it, stays one: the old release has to bear reading NULLs.",
        operations=lambda: [
            # A constant as in pgroll's could not be written into two rows.
            LoosenNotNull(
                table="fruits", column="name", reads=["id"], value=lambda row: concat("fruit ", to_text(row.id))
            )
        ],
        setup=[FRUITS.format(" CONSTRAINT uq_name UNIQUE"), "CREATE INDEX idx_fruits_name ON fruits (name)"],
        old=["INSERT INTO fruits (name) VALUES ('fig')"],
        meanwhile=["INSERT INTO fruits (name) VALUES (NULL)", "INSERT INTO fruits (name) VALUES ('kiwi')"],
        end={
            "SELECT name FROM fruits ORDER BY id": [("fig",), (None,), ("kiwi",)],
            index("idx_fruits_name"): [("CREATE INDEX idx_fruits_name ON public.fruits USING btree (name)",)],
        },
        refused=["INSERT INTO fruits (name) VALUES ('kiwi')"],
    ),
    Example(
        name="50_create_table_with_table_constraint",
        title="a table with a named key, a unique constraint and a check",
        verdict="expressed",
        reason="",
        operations=lambda: [
            made(
                "telephone_providers",
                sa.Column("id", sa.Integer),
                text("name"),
                text("tax_id"),
                sa.PrimaryKeyConstraint("id", name="provider_pk"),
                sa.UniqueConstraint("tax_id", name="unique_tax_id"),
                sa.CheckConstraint("length(name) > 0", name="name_must_be_present"),
            )
        ],
        meanwhile=["INSERT INTO telephone_providers (name, tax_id) VALUES ('ring', 't1')"],
        end={
            constraints("telephone_providers"): [
                ("name_must_be_present", "c", True),
                ("unique_tax_id", "u", True),
            ],
            "SELECT indexrelid::regclass::text FROM pg_index WHERE indisprimary AND indrelid ="
            " 'telephone_providers'::regclass": [("provider_pk",)],
        },
        refused=[
            "INSERT INTO telephone_providers (name, tax_id) VALUES ('ring', 't1')",
            "INSERT INTO telephone_providers (name, tax_id) VALUES ('', 't2')",
        ],
    ),
    Example(
        name="51_create_table_with_table_foreign_key_constraint",
        title="a table with a cascading foreign key, a unique constraint that includes a column, and a check",
        verdict="expressed otherwise",
        reason="What includes a column is a unique index, not a constraint.",
        operations=lambda: [
            made(
                "phonebook",
                serial(),
                sa.Column("provider_id", sa.Integer, nullable=False),
                text("name"),
                text("phone"),
                sa.ForeignKeyConstraint(
                    ["provider_id"], ["providers.id"], name="provider_fk", ondelete="CASCADE", onupdate="CASCADE"
                ),
                sa.CheckConstraint("length(name) > 0", name="name_must_be_present"),
                sa.Index("unique_numbers", "phone", unique=True, postgresql_include=["name"]),
            )
        ],
        setup=["CREATE TABLE providers (id serial PRIMARY KEY)", "INSERT INTO providers VALUES (1), (2)"],
        meanwhile=[
            "INSERT INTO phonebook (provider_id, name, phone) VALUES (1, 'ada', '1'), (2, 'bob', '2')",
            "DELETE FROM providers WHERE id = 1",
        ],
        end={
            "SELECT name FROM phonebook": [("bob",)],
            index("unique_numbers"): [
                ("CREATE UNIQUE INDEX unique_numbers ON public.phonebook USING btree (phone) INCLUDE (name)",)
            ],
        },
        refused=["INSERT INTO phonebook (provider_id, name, phone) VALUES (2, 'ida', '2')"],
    ),
    Example(
        name="52_create_table_with_exclusion_constraint",
        title="a table with an exclusion constraint",
        verdict="expressed",
        reason="With the table. `AddExclusion` makes one on a table that is there, while its writers wait.",
        operations=lambda: [
            made(
                "library",
                serial(),
                sa.Column("title", sa.Text(), nullable=False),
                ExcludeConstraint(
                    ("title", "="),
                    name="forbid_duplicated_titles",
                    using="btree",
                    where=sa.text("title IS NOT NULL"),
                ),
            )
        ],
        meanwhile=["INSERT INTO library (title) VALUES ('Emma')"],
        end={"SELECT contype::text FROM pg_constraint WHERE conname = 'forbid_duplicated_titles'": [("x",)]},
        refused=["INSERT INTO library (title) VALUES ('Emma')"],
    ),
    Example(
        name="53_add_column_with_volatile_default",
        title="a column with a random default, and a random number for the rows that are there",
        verdict="refused",
        reason="A random value is no image of a row. Add the column NULLable, and let the new release say its values.",
        operations=lambda: [
            AddColumn(
                table="library",
                column=sa.Column("value", sa.Integer, nullable=False),
                value=lambda _row: sa.func.random(),
            )
        ],
        problem="CF103",
    ),
    Example(
        name="54_create_index_with_opclass",
        title="an index with an operator class",
        verdict="expressed otherwise",
        reason="The class is the one that PostgreSQL takes for such a column anyway. Others cannot be named yet.",
        operations=lambda: [CreateIndex(table="fruits", name="idx_fruits_opclass", columns=["id"])],
        setup=[FRUITS.format("")],
        old=["INSERT INTO fruits (name) VALUES ('fig')"],
        meanwhile=["INSERT INTO fruits (name) VALUES ('kiwi')"],
        end={
            "SELECT opcname::text FROM pg_index JOIN pg_opclass c ON c.oid = indclass[0]"
            " WHERE indexrelid = 'idx_fruits_opclass'::regclass": [("int8_ops",)]
        },
    ),
    Example(
        name="55_add_primary_key_constraint_to_table",
        title="a table is created, and gets a primary key by a second operation",
        verdict="expressed otherwise",
        reason="The key is part of the declaration. A table that is there gets one by `AddPrimaryKey`.",
        operations=lambda: [made("tasks", sa.Column("id", sa.Integer), sa.PrimaryKeyConstraint("id", name="pk_tasks"))],
        meanwhile=["INSERT INTO tasks DEFAULT VALUES"],
        end={"SELECT id FROM tasks": [(1,)]},
        refused=["INSERT INTO tasks (id) VALUES (1)"],
    ),
    Example(
        name="55_create_multicolumn_index",
        title="an index over two columns, both ascending",
        verdict="expressed",
        reason="A descending one is not yet.",
        operations=lambda: [CreateIndex(table="users", name="idx_users_last", columns=["last_name", "first_name"])],
        setup=["CREATE TABLE users (id integer PRIMARY KEY, first_name text, last_name text)"],
        old=["INSERT INTO users (id) VALUES (1)"],
        meanwhile=["INSERT INTO users (id) VALUES (2)"],
        end={
            index("idx_users_last"): [
                ("CREATE INDEX idx_users_last ON public.users USING btree (last_name, first_name)",)
            ]
        },
    ),
    Example(
        name="56_with_version_schema",
        title="a table, in a migration that names the schema of its version's views",
        verdict="expressed otherwise",
        reason="There are no such schemas, so there is nothing to name.",
        operations=lambda: [made("products", serial(), sa.Column("name", sa.String(255), nullable=False, unique=True))],
        meanwhile=["INSERT INTO products (name) VALUES ('pen')"],
        end={"SELECT id, name FROM products": [(1, "pen")]},
        refused=["INSERT INTO products (name) VALUES ('pen')"],
    ),
)
