"""The examples 01 to 27."""

from __future__ import annotations

import sqlalchemy as sa

from contraflow import (
    AddCheck,
    AddColumn,
    AddForeignKey,
    AddUnique,
    ChangeType,
    CreateIndex,
    DropCheck,
    DropColumn,
    DropForeignKey,
    DropIndex,
    DropTable,
    DropUnique,
    RenameColumn,
    RenameTable,
    TightenNotNull,
)
from contraflow.expressions import concat, length, substr, to_integer, to_text, upper
from tests.operations.pgroll.example import (
    COLUMNS,
    FRUITS,
    PEOPLE,
    POSTS,
    REVIEW,
    REVIEWS,
    SHOWN,
    UNTIL,
    USERS,
    Example,
    constraints,
    index,
    made,
    serial,
    text,
)

EARLY = (
    Example(
        name="01_create_tables",
        title="three tables, one with a primary key of two columns",
        verdict="expressed",
        reason="",
        operations=lambda: [
            made("customers", serial(), sa.Column("name", sa.String(255), nullable=False, unique=True), text("card")),
            made("bills", serial(), sa.Column("date", sa.Time(timezone=True), nullable=False)),
            made(
                "sellers",
                sa.Column("name", sa.String(255), primary_key=True),
                sa.Column("zip", sa.Integer, primary_key=True, autoincrement=False),
                text("description", nullable=True),
            ),
        ],
        meanwhile=[
            "INSERT INTO customers (name, card) VALUES ('ada', '1')",
            "INSERT INTO bills (date) VALUES ('10:00+02')",
            "INSERT INTO sellers (name, zip) VALUES ('alice', 1), ('alice', 2)",
        ],
        end={"SELECT name, zip FROM sellers ORDER BY 2": [("alice", 1), ("alice", 2)]},
        refused=[
            "INSERT INTO customers (name, card) VALUES ('ada', '1')",
            "INSERT INTO sellers (name, zip) VALUES ('alice', 1)",
        ],
    ),
    Example(
        name="02_create_another_table",
        title="a table with a serial key, a unique name and a price",
        verdict="expressed",
        reason="",
        operations=lambda: [
            made(
                "products",
                serial(),
                sa.Column("name", sa.String(255), nullable=False, unique=True),
                sa.Column("price", sa.Numeric(10, 2), nullable=False),
            )
        ],
        meanwhile=["INSERT INTO products (name, price) VALUES ('pen', 1.5)"],
        end={"SELECT id, name, price::text FROM products": [(1, "pen", "1.50")]},
        refused=["INSERT INTO products (name, price) VALUES ('pen', 2)"],
    ),
    Example(
        name="03_add_column",
        title="three columns: computed and NULLable, with a default, computed and NOT NULL",
        verdict="expressed better",
        reason="`keep=` says whether a later change of the name counts; a suffix for which a long name leaves no room"
        " is found before anything is installed (`CF107`).",
        operations=lambda: [
            AddColumn(
                table="products",
                column=text("description", nullable=True),
                value=lambda row: upper(row["name"]),
                reads=["name"],
                keep="fill",
            ),
            AddColumn(table="products", column=sa.Column("stock", sa.Integer, nullable=False, server_default="100")),
            AddColumn(
                table="products",
                column=text("category"),
                value=lambda row: concat(substr(row["name"], 1, 246), "-category"),
                reads=["name"],
                keep="fill",
            ),
        ],
        setup=[
            "CREATE TABLE products (id serial PRIMARY KEY, name varchar(255) NOT NULL UNIQUE)",
            "INSERT INTO products (name) VALUES ('pen')",
        ],
        old=["INSERT INTO products (name) VALUES ('ink')"],
        meanwhile=[
            "UPDATE products SET description = 'blue', stock = 3 WHERE name = 'ink'",
            "UPDATE products SET name = 'inks' WHERE name = 'ink'",
            "INSERT INTO products (name, category) VALUES ('cup', 'mug')",
        ],
        end={
            "SELECT name, description, stock, category FROM products ORDER BY id": [
                ("pen", "PEN", 100, "pen-category"),
                ("inks", "blue", 3, "ink-category"),
                ("cup", None, 100, "mug"),
            ]
        },
        refused=["INSERT INTO products (name) VALUES ('cap')"],
    ),
    Example(
        name="04_rename_table",
        title="a table gets another name",
        verdict="expressed",
        reason="Both names work in the one schema; no connection needs a search path.",
        operations=lambda: [RenameTable(table="customers", new="clients")],
        setup=["CREATE TABLE customers (id integer PRIMARY KEY, name varchar(255) NOT NULL UNIQUE)"],
        old=["INSERT INTO customers (id, name) VALUES (1, 'ada')"],
        meanwhile=[
            "INSERT INTO clients (id, name) VALUES (2, 'bob')",
            "UPDATE customers SET name = 'bobby' WHERE id = 2",
        ],
        end={"SELECT id, name FROM clients ORDER BY id": [(1, "ada"), (2, "bobby")]},
        refused=["SELECT id FROM customers"],
    ),
    Example(
        name="05_sql",
        title="a table is created in raw SQL, with the SQL that undoes it",
        verdict="expressed better",
        reason="Declared, so that its undoing need not be written.",
        operations=lambda: [
            made(
                "users",
                sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
                sa.Column("name", sa.Text()),
            )
        ],
        meanwhile=["INSERT INTO users (id, name) VALUES (1, NULL)"],
        end={"SELECT id, name FROM users": [(1, None)]},
    ),
    Example(
        name="06_add_column_to_sql_table",
        title="a computed column for the table that raw SQL made",
        verdict="expressed",
        reason="A text of any length does not fit into 255 characters: that is asked about, here answered by `substr`.",
        operations=lambda: [
            AddColumn(
                table="users",
                column=text("description", nullable=True),
                value=lambda row: upper(substr(row["name"], 1, 255)),
                reads=["name"],
                keep="track",
            )
        ],
        setup=[USERS, "INSERT INTO users (id, name) VALUES (1, 'ada')"],
        old=["INSERT INTO users (id, name) VALUES (2, 'bob')"],
        meanwhile=[
            "UPDATE users SET name = 'ida' WHERE id = 1",
            "UPDATE users SET description = 'x' WHERE id = 2",
        ],
        end={"SELECT name, description FROM users ORDER BY id": [("ida", "IDA"), ("bob", "x")]},
    ),
    Example(
        name="07_drop_table",
        title="a table goes",
        verdict="expressed",
        reason="It stands under its name for the old release until contract.",
        operations=lambda: [DropTable(table="products")],
        setup=["CREATE TABLE products (id serial PRIMARY KEY)"],
        old=["INSERT INTO products DEFAULT VALUES"],
        meanwhile=["INSERT INTO products DEFAULT VALUES"],
        seen={"SELECT count(*) FROM products": [(2,)]},
        refused=["SELECT id FROM products"],
    ),
    Example(
        name="08_create_fruits_table",
        title="a table whose key is an identity column",
        verdict="expressed",
        reason="",
        operations=lambda: [
            made(
                "fruits",
                sa.Column("id", sa.BigInteger, sa.Identity(always=False), primary_key=True),
                sa.Column("name", sa.String(255), nullable=False, unique=True),
                sa.Column("price", sa.Numeric(10, 2), nullable=False),
            )
        ],
        meanwhile=[
            "INSERT INTO fruits (name, price) VALUES ('fig', 1)",
            "INSERT INTO fruits (id, name, price) VALUES (70, 'kiwi', 1)",
        ],
        end={"SELECT id, name FROM fruits ORDER BY id": [(1, "fig"), (70, "kiwi")]},
    ),
    Example(
        name="09_drop_column",
        title="a NOT NULL column goes; rows of the new release have 0 there",
        verdict="expressed",
        reason="",
        operations=lambda: [DropColumn(table="fruits", column="price", value=lambda _row: 0)],
        setup=[FRUITS.format(", price decimal(10,2) NOT NULL")],
        old=["INSERT INTO fruits (name, price) VALUES ('fig', 2)"],
        meanwhile=["INSERT INTO fruits (name) VALUES ('kiwi')", "UPDATE fruits SET price = 3 WHERE name = 'fig'"],
        seen={"SELECT name, price::text FROM fruits ORDER BY id": [("fig", "3.00"), ("kiwi", "0.00")]},
        end={COLUMNS.format("fruits"): [("id",), ("name",)]},
    ),
    Example(
        name="10_create_index",
        title="an index",
        verdict="expressed",
        reason="",
        operations=lambda: [CreateIndex(table="fruits", name="idx_fruits_name", columns=["name"])],
        setup=[FRUITS.format("")],
        old=["INSERT INTO fruits (name) VALUES ('fig')"],
        meanwhile=["INSERT INTO fruits (name) VALUES ('fig')"],
        end={index("idx_fruits_name"): [("CREATE INDEX idx_fruits_name ON public.fruits USING btree (name)",)]},
    ),
    Example(
        name="11_drop_index",
        title="the index goes",
        verdict="expressed",
        reason="",
        operations=lambda: [DropIndex(table="fruits", name="idx_fruits_name")],
        setup=[FRUITS.format(""), "CREATE INDEX idx_fruits_name ON fruits (name)"],
        meanwhile=["INSERT INTO fruits (name) VALUES ('fig')"],
        seen={"SELECT count(*) FROM pg_indexes WHERE indexname = 'idx_fruits_name'": [(1,)]},
        end={index("idx_fruits_name"): []},
    ),
    Example(
        name="12_create_employees_table",
        title="a table and a column with comments",
        verdict="expressed",
        reason="",
        operations=lambda: [made("employees", serial(), text("role", comment="the role"), comment="the staff")],
        meanwhile=["INSERT INTO employees (role) VALUES ('cook')"],
        end={
            "SELECT obj_description('employees'::regclass), col_description('employees'::regclass, 2)": [
                ("the staff", "the role")
            ]
        },
    ),
    Example(
        name="13_rename_column",
        title="a column gets another name",
        verdict="expressed",
        reason="It costs more than a name in a view: a second column is filled and kept in step until contract.",
        operations=lambda: [RenameColumn(table="employees", old="role", new="job_title")],
        setup=[
            "CREATE TABLE employees (id serial PRIMARY KEY, role varchar(255) NOT NULL)",
            "INSERT INTO employees (role) VALUES ('cook')",
        ],
        old=["INSERT INTO employees (role) VALUES ('nurse')"],
        meanwhile=[
            "UPDATE employees SET job_title = 'chef' WHERE role = 'cook'",
            "UPDATE employees SET role = 'medic' WHERE job_title = 'nurse'",
        ],
        seen={"SELECT role, job_title FROM employees ORDER BY id": [("chef", "chef"), ("medic", "medic")]},
        end={"SELECT job_title FROM employees ORDER BY id": [("chef",), ("medic",)]},
    ),
    Example(
        name="14_add_reviews_table",
        title="a table of texts",
        verdict="expressed",
        reason="",
        operations=lambda: [
            made(
                "reviews",
                serial(),
                sa.Column("username", sa.Text(), nullable=False),
                sa.Column("product", sa.Text(), nullable=False),
                sa.Column("review", sa.Text()),
            )
        ],
        meanwhile=[REVIEW + "('ada', 'pen', NULL)"],
        end={"SELECT username, review FROM reviews": [("ada", None)]},
    ),
    Example(
        name="15_set_column_unique",
        title="a column becomes unique; a random suffix makes alike rows differ",
        verdict="expressed otherwise",
        reason="Random values are no image of a row. " + SHOWN,
        operations=lambda: [AddUnique(table="reviews", name="reviews_review_unique", columns=["review"])],
        setup=[REVIEWS.format("")],
        old=[REVIEW + "('ada', 'pen', 'good'), ('bob', 'pen', NULL)"],
        meanwhile=[REVIEW + "('bob', 'cup', 'good')"],
        obstacle="CF014: ",
        mend=["UPDATE reviews SET review = 'good!' WHERE username = 'bob' AND product = 'cup'"],
        end={constraints("reviews"): [("reviews_review_unique", "u", True)]},
        refused=[REVIEW + "('ida', 'pen', 'good')"],
    ),
    Example(
        name="16_set_nullable",
        title="a column becomes NOT NULL; NULLs get a text made of another column",
        verdict="expressed otherwise",
        reason="Under its own name the new release meets NULLs until contract fills them.",
        operations=lambda: [
            TightenNotNull(
                table="reviews",
                column="review",
                reads=["product"],
                fill=lambda row: concat(row["product"], " is good"),
            )
        ],
        setup=[REVIEWS.format(""), REVIEW + "('ada', 'pen', NULL)"],
        old=[REVIEW + "('bob', 'cup', NULL)"],
        meanwhile=[REVIEW + "('ida', 'ink', 'fine')", REVIEW + "('bob', 'pad', NULL)"],
        end={
            "SELECT review FROM reviews ORDER BY id": [("pen is good",), ("cup is good",), ("fine",), ("pad is good",)]
        },
        refused=[REVIEW + "('ada', 'pen', NULL)"],
    ),
    Example(
        name="17_add_rating_column",
        title="a NOT NULL text column with a default",
        verdict="expressed",
        reason="",
        operations=lambda: [
            AddColumn(table="reviews", column=sa.Column("rating", sa.Text(), nullable=False, server_default="0"))
        ],
        setup=[REVIEWS.format(""), REVIEW + "('ada', 'pen', NULL)"],
        old=[REVIEW + "('bob', 'pen', NULL)"],
        meanwhile=["UPDATE reviews SET rating = '5' WHERE username = 'bob'", "UPDATE reviews SET product = 'cup'"],
        end={"SELECT rating FROM reviews ORDER BY id": [("0",), ("5",)]},
    ),
    Example(
        name="18_change_column_type",
        title="a text column becomes an integer",
        verdict="expressed otherwise",
        reason="Both releases see one table, so the new type takes a new name, and a text that is no number must be"
        " given a meaning.",
        operations=lambda: [
            ChangeType(
                table="reviews",
                column="rating",
                new=sa.Column("stars", sa.Integer, nullable=False),
                forward=lambda row: sa.func.coalesce(to_integer(row["rating"]), 0),
                backward=lambda row: to_text(row["stars"]),
                lossy=True,
            )
        ],
        setup=[REVIEWS.format(", rating text NOT NULL"), REVIEW[:-9] + ", rating) VALUES ('ada', 'pen', NULL, '4')"],
        old=[REVIEW[:-9] + ", rating) VALUES ('bob', 'pen', NULL, 'n/a')"],
        meanwhile=[
            "UPDATE reviews SET stars = 5 WHERE username = 'ada'",
            REVIEW[:-9] + ", rating) VALUES ('ida', 'pen', NULL, '3')",
        ],
        seen={"SELECT rating, stars FROM reviews ORDER BY id": [("5", 5), ("n/a", 0), ("3", 3)]},
        end={"SELECT stars FROM reviews ORDER BY id": [(5,), (0,), (3,)]},
    ),
    Example(
        name="19_create_orders_table",
        title="a table with a foreign key to one that both releases write",
        verdict="expressed better",
        reason="Without an action the key would refuse the old release's deletes: that is asked about"
        " (`CF121`, here answered by `restricts=True`).",
        operations=lambda: [
            made(
                "orders",
                serial(),
                sa.Column("user_id", sa.Integer, nullable=False),
                sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_users_id"),
                restricts=True,
            )
        ],
        setup=[USERS, "INSERT INTO users (id) VALUES (1)"],
        old=["INSERT INTO users (id) VALUES (2)"],
        meanwhile=["INSERT INTO orders (user_id) VALUES (2)", "DELETE FROM users WHERE id = 1"],
        end={constraints("orders"): [("fk_users_id", "f", True)]},
        refused=["INSERT INTO orders (user_id) VALUES (1)"],
    ),
    Example(
        name="20_create_posts_table",
        title="a table with a NULLable column",
        verdict="expressed",
        reason="",
        operations=lambda: [made("posts", serial(), text("title"), sa.Column("user_id", sa.Integer))],
        meanwhile=["INSERT INTO posts (title) VALUES ('news')"],
        end={"SELECT title, user_id FROM posts": [("news", None)]},
    ),
    Example(
        name="21_add_foreign_key_constraint",
        title="a foreign key; rows that refer to nothing get NULL",
        verdict="expressed otherwise",
        reason=SHOWN,
        operations=lambda: [
            AddForeignKey(
                table="posts",
                name="fk_users_id",
                columns=["user_id"],
                target="users",
                target_columns=["id"],
                ondelete="CASCADE",
            )
        ],
        setup=[USERS, POSTS.format("", ""), "INSERT INTO users (id) VALUES (1), (2)"],
        old=["INSERT INTO posts (title, user_id) VALUES ('news', 1), ('lost', 7)"],
        meanwhile=["INSERT INTO posts (title, user_id) VALUES ('more', 2)"],
        obstacle="CF016: .*fk_users_id",
        mend=["UPDATE posts SET user_id = NULL WHERE user_id = 7"],
        end={
            constraints("posts"): [("fk_users_id", "f", True)],
            "SELECT title, user_id FROM posts ORDER BY id": [("news", 1), ("lost", None), ("more", 2)],
        },
        refused=["INSERT INTO posts (title, user_id) VALUES ('lost', 7)"],
    ),
    Example(
        name="22_add_check_constraint",
        title="a check on a text's length; short texts are padded",
        verdict="expressed otherwise",
        reason=SHOWN,
        operations=lambda: [
            AddCheck(
                table="posts", name="title_length", columns=["title"], condition=lambda row: length(row["title"]) > 3
            )
        ],
        setup=[POSTS.format("", "")],
        old=["INSERT INTO posts (title) VALUES ('new')"],
        meanwhile=["INSERT INTO posts (title) VALUES ('more')"],
        obstacle="CF016: .*title_length.*title='new'",
        mend=["UPDATE posts SET title = '-new' WHERE title = 'new'"],
        end={constraints("posts"): [("title_length", "c", True)]},
        refused=["INSERT INTO posts (title) VALUES ('new')"],
    ),
    Example(
        name="23_drop_check_constraint",
        title="the check goes; short texts are padded for the old release",
        verdict="expressed otherwise",
        reason=UNTIL,
        operations=lambda: [DropCheck(table="posts", name="title_length")],
        setup=[POSTS.format(" CONSTRAINT title_length CHECK (length(title) > 3)", "")],
        old=["INSERT INTO posts (title) VALUES ('news')"],
        meanwhile=["INSERT INTO posts (title) VALUES ('more')"],
        end={constraints("posts"): []},
    ),
    Example(
        name="24_drop_foreign_key_constraint",
        title="the foreign key goes; the old release reads NULL where it would not hold",
        verdict="expressed otherwise",
        reason=UNTIL,
        operations=lambda: [DropForeignKey(table="posts", columns=["user_id"])],
        setup=[USERS, POSTS.format("", " CONSTRAINT fk_users_id REFERENCES users (id) ON DELETE CASCADE")],
        old=["INSERT INTO users (id) VALUES (1)"],
        meanwhile=["INSERT INTO posts (title, user_id) VALUES ('news', 1)"],
        end={constraints("posts"): []},
    ),
    Example(
        name="25_add_table_with_check_constraint",
        title="a table with a check",
        verdict="expressed",
        reason="",
        operations=lambda: [
            made("people", serial(), text("name"), sa.CheckConstraint("length(name) > 3", name="name_length"))
        ],
        meanwhile=["INSERT INTO people (name) VALUES ('Hans')"],
        end={constraints("people"): [("name_length", "c", True)]},
        refused=["INSERT INTO people (name) VALUES ('Ada')"],
    ),
    Example(
        name="26_add_column_with_check_constraint",
        title="a NOT NULL column with a default and a check",
        verdict="expressed otherwise",
        reason="A trigger fills the column for the old release, so the check is made by contract, not by `migrate`.",
        operations=lambda: [
            AddColumn(table="people", column=sa.Column("age", sa.Integer, nullable=False, server_default="18")),
            AddCheck(table="people", name="age_check", columns=["age"], condition=lambda row: row["age"] >= 18),
        ],
        setup=[PEOPLE.format(""), "INSERT INTO people (id, name) VALUES (1, 'Ada')"],
        old=["INSERT INTO people (id, name) VALUES (2, 'Bob')"],
        meanwhile=["UPDATE people SET age = 20 WHERE id = 2", "INSERT INTO people (id, name) VALUES (3, 'Ida')"],
        end={
            "SELECT age FROM people ORDER BY id": [(18,), (20,), (18,)],
            constraints("people"): [("age_check", "c", True)],
        },
        refused=["UPDATE people SET age = 17 WHERE id = 2"],
    ),
    Example(
        name="27_drop_unique_constraint",
        title="a unique constraint goes; a random suffix keeps the old release's rows unique",
        verdict="expressed otherwise",
        reason=UNTIL,
        operations=lambda: [DropUnique(table="reviews", columns=["review"])],
        setup=[REVIEWS.format(" CONSTRAINT reviews_review_unique UNIQUE")],
        old=[REVIEW + "('ada', 'pen', 'good')"],
        meanwhile=[REVIEW + "('ada', 'pen', 'fine')"],
        end={constraints("reviews"): []},
    ),
)
