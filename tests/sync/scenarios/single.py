"""One column into one: renamed, or recoded."""

# ruff: noqa: DTZ001  from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from contraflow import expressions as x
from contraflow.lens import Lens
from contraflow.operations.columns import ChangeType, RenameColumn, TransformColumns
from tests.sync.oracle import Cell, Group
from tests.sync.scenarios.base import CASES, SPACED, TEXTS, lower_, model, or_, scenario, time6, trim_, upper_

__all__ = ["PREFIX", "one", "rename"]

# --- rename -------------------------------------------------------------------------------------------------------


def rename(old: str, new: str, **options: Any) -> Group:
    cell = {key: options.pop(key) for key in ("nullable", "default") if key in options}
    return Group(
        old=(Cell(name=old, **cell),),
        new=(Cell(name=new, **cell),),
        forward=lambda row: {new: row[old]},
        backward=lambda row: {old: row[new]},
        **options,
    )


scenario(
    "rename_nullable",
    columns=lambda: [sa.Column("name", sa.String(60))],
    changes=lambda: [RenameColumn(table="things", old="name", new="title")],
    model=model(rename("name", "title")),
    pools={"name": TEXTS, "title": TEXTS},
)
scenario(
    "rename_required",
    columns=lambda: [sa.Column("name", sa.String(60), nullable=False)],
    changes=lambda: [RenameColumn(table="things", old="name", new="title")],
    model=model(rename("name", "title", nullable=False)),
    pools={"name": TEXTS, "title": TEXTS},
)
_DEFAULT = "it's 50% :x"
scenario(
    "rename_required_default",
    columns=lambda: [sa.Column("name", sa.String(60), nullable=False, server_default=_DEFAULT)],
    changes=lambda: [RenameColumn(table="things", old="name", new="title")],
    model=model(rename("name", "title", nullable=False, default=_DEFAULT)),
    pools={"name": [*TEXTS, _DEFAULT], "title": [*TEXTS, _DEFAULT]},
)
for _side in ("old", "new"):
    scenario(
        f"rename_default_omitted_{_side}",
        columns=lambda: [sa.Column("name", sa.String(60), server_default="x")],
        changes=lambda side=_side: [RenameColumn(table="things", old="name", new="title", omitted=side, winner=side)],
        model=model(rename("name", "title", default="x", omitted=_side, winner=_side)),
        pools={"name": ["x", "X", "a", "b "], "title": ["x", "X", "a", "b "]},
    )
_ODD_OLD, _ODD_NEW = 'Old "100%" :x', "new 'ünï' `y` \\z"
scenario(
    "rename_odd_names",
    table='Some "things" 50% :y',
    columns=lambda: [sa.Column(_ODD_OLD, sa.String(60)), sa.Column("select", sa.Integer())],
    changes=lambda: [
        RenameColumn(table='Some "things" 50% :y', old=_ODD_OLD, new=_ODD_NEW),
        RenameColumn(table='Some "things" 50% :y', old="select", new="from"),
    ],
    model=model(rename(_ODD_OLD, _ODD_NEW), rename("select", "from")),
    pools={_ODD_OLD: TEXTS[:8], _ODD_NEW: TEXTS[:8], "select": [1, 2], "from": [1, 2]},
)

_COLLATIONS = {
    "sqlite": "NOCASE",
    "postgresql": "blind",
    "mysql": "utf8mb4_0900_ai_ci",
    "mariadb": "utf8mb4_general_ci",
}
scenario(
    "rename_blind_collation",
    kinds=("sqlite", "postgresql15", "mysql", "mariadb"),
    setup={
        "postgresql": ["CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level1', deterministic = false)"]
    },
    columns=lambda product: [
        sa.Column("name", sa.String(60, collation=_COLLATIONS[product]), nullable=False),
    ],
    changes=lambda: [RenameColumn(table="things", old="name", new="title")],
    model=model(rename("name", "title", nullable=False)),
    pools={name: ["a", "A", "a ", "á", "b", "B", "e\u0301", "é", "", " "] for name in ("name", "title")},
)
scenario(
    "rename_without_rowid",
    products=("sqlite",),
    rowid=False,
    columns=lambda: [sa.Column("name", sa.String(60), nullable=False)],
    changes=lambda: [RenameColumn(table="things", old="name", new="title")],
    model=model(rename("name", "title", nullable=False)),
    pools={"name": TEXTS, "title": TEXTS},
)
scenario(
    "rename_without_key",
    keyed=False,
    columns=lambda: [sa.Column("name", sa.String(60), nullable=False)],
    changes=lambda: [RenameColumn(table="things", old="name", new="title")],
    model=model(rename("name", "title", nullable=False)),
    pools={"name": TEXTS, "title": TEXTS},
)
scenario(
    "rename_composite_key",
    composite=True,
    columns=lambda: [sa.Column("name", sa.String(60))],
    changes=lambda: [RenameColumn(table="things", old="name", new="title")],
    model=model(rename("name", "title")),
    pools={"name": TEXTS, "title": TEXTS},
)
_TYPES: dict[str, tuple[Callable[[], Any], list[Any]]] = {
    "day": (sa.Date, [dt.date(2024, 2, 29), dt.date(1969, 12, 31)]),
    "raw": (lambda: sa.LargeBinary(20), [b"", b"\x00\xff'", b"abc", b"ABC"]),
    "big": (sa.BigInteger, [0, -1, 2**63 - 1, -(2**63)]),
    "yes": (sa.Boolean, [True, False]),
    "at": (time6, [dt.datetime(2024, 2, 29, 1, 2, 3, 4), dt.datetime(1969, 12, 31, 23, 59, 59)]),
    "doc": (sa.JSON, [{}, {"a": [1, None, "x"]}, [1], {"a": [1, None, "y"]}]),
    "sum": (lambda: sa.Numeric(10, 2), [Decimal("1.10"), Decimal("-0.5"), Decimal("99999999.99")]),
}
scenario(
    "rename_many_types",
    columns=lambda: [sa.Column(f"o_{name}", make()) for name, (make, _) in _TYPES.items()],
    changes=lambda: [RenameColumn(table="things", old=f"o_{name}", new=f"n_{name}") for name in _TYPES],
    model=model(*(rename(f"o_{name}", f"n_{name}") for name in _TYPES)),
    pools={f"{side}_{name}": pool for name, (_, pool) in _TYPES.items() for side in "on"},
)


# --- one column into one ------------------------------------------------------------------------------------------


def one(
    old: Cell,
    new: Cell,
    forward: Callable[[Any], Any],
    backward: Callable[[Any], Any],
    **options: Any,
) -> Group:
    return Group(
        old=(old,),
        new=(new,),
        forward=lambda row: {new.name: forward(row[old.name])},
        backward=lambda row: {old.name: backward(row[new.name])},
        **options,
    )


for _side in ("old", "new"):
    scenario(
        f"fold_winner_{_side}",
        columns=lambda: [sa.Column("email", sa.String(60))],
        changes=lambda side=_side: [
            TransformColumns(
                table="things",
                columns=[sa.Column("folded", sa.String(60))],
                lens=Lens(
                    old=["email"],
                    new=["folded"],
                    forward=lambda row: {"folded": x.lower(row.email)},
                    backward=lambda row: {"email": row.folded},
                    winner=side,
                ),
            )
        ],
        model=model(one(Cell(name="email"), Cell(name="folded"), lower_, lambda v: v, winner=_side)),
        pools={"email": CASES, "folded": CASES},
    )
scenario(
    "fold_both_ways",
    columns=lambda: [sa.Column("email", sa.String(60), nullable=False)],
    changes=lambda: [
        ChangeType(
            table="things",
            column="email",
            new=sa.Column("folded", sa.String(60), nullable=False),
            forward=lambda row: x.lower(row.email),
            backward=lambda row: x.upper(row.folded),
        )
    ],
    model=model(one(Cell(name="email", nullable=False), Cell(name="folded", nullable=False), lower_, upper_)),
    pools={"email": CASES, "folded": CASES},
)
scenario(
    "trim_back",
    columns=lambda: [sa.Column("name", sa.String(60))],
    changes=lambda: [
        ChangeType(
            table="things",
            column="name",
            new=sa.Column("padded", sa.String(60)),
            forward=lambda row: row.name,
            backward=lambda row: x.trim(row.padded),
        )
    ],
    model=model(one(Cell(name="name"), Cell(name="padded"), lambda v: v, trim_)),
    pools={"name": SPACED, "padded": SPACED},
)
PREFIX = "it's :50% \\ {0} $f$ "
scenario(
    "odd_literals",
    columns=lambda: [sa.Column("name", sa.String(60))],
    changes=lambda: [
        ChangeType(
            table="things",
            column="name",
            new=sa.Column("tagged", sa.String(90)),
            forward=lambda row: x.concat(PREFIX, row.name),
            backward=lambda row: x.replace(row.tagged, PREFIX, ""),
        )
    ],
    model=model(
        one(
            Cell(name="name"),
            Cell(name="tagged"),
            lambda v: None if v is None else PREFIX + v,
            lambda v: None if v is None else v.replace(PREFIX, ""),
        )
    ),
    pools={"name": [*CASES, PREFIX], "tagged": [PREFIX, PREFIX + "a", "plain", PREFIX.upper()]},
)
scenario(
    "tighten",
    columns=lambda: [sa.Column("nick", sa.String(60))],
    changes=lambda: [
        ChangeType(
            table="things",
            column="nick",
            new=sa.Column("nickname", sa.String(60), nullable=False),
            forward=lambda row: sa.func.coalesce(row.nick, ""),
            backward=lambda row: row.nickname,
        )
    ],
    model=model(one(Cell(name="nick"), Cell(name="nickname", nullable=False), lambda v: or_(v, ""), lambda v: v)),
    pools={"nick": ["", "a", "A"], "nickname": ["", "a", "A"]},
)
scenario(
    "loosen",
    columns=lambda: [sa.Column("nick", sa.String(60), nullable=False)],
    changes=lambda: [
        ChangeType(
            table="things",
            column="nick",
            new=sa.Column("nickname", sa.String(60)),
            forward=lambda row: row.nick,
            backward=lambda row: sa.func.coalesce(row.nickname, ""),
        )
    ],
    model=model(one(Cell(name="nick", nullable=False), Cell(name="nickname"), lambda v: v, lambda v: or_(v, ""))),
    pools={"nick": ["", "a", "A"], "nickname": ["", "a", "A"]},
)
scenario(
    "loosen_to_null",
    columns=lambda: [sa.Column("nick", sa.String(60), nullable=False)],
    changes=lambda: [
        ChangeType(
            table="things",
            column="nick",
            new=sa.Column("nickname", sa.String(60)),
            forward=lambda row: sa.case((row.nick == "", None), else_=row.nick),
            backward=lambda row: sa.func.coalesce(row.nickname, ""),
        )
    ],
    model=model(
        one(
            Cell(name="nick", nullable=False),
            Cell(name="nickname"),
            lambda v: None if v == "" else v,
            lambda v: or_(v, ""),
        )
    ),
    pools={"nick": ["", "a", "A"], "nickname": ["", "a", "A"]},
)
for _side in ("old", "new"):
    scenario(
        f"null_has_a_meaning_omitted_{_side}",
        columns=lambda: [sa.Column("nick", sa.String(60))],
        changes=lambda side=_side: [
            ChangeType(
                table="things",
                column="nick",
                new=sa.Column("label", sa.String(60)),
                forward=lambda row: sa.func.coalesce(row.nick, "none"),
                backward=lambda row: sa.func.coalesce(row.label, "nil"),
                omitted=side,
            )
        ],
        model=model(
            one(Cell(name="nick"), Cell(name="label"), lambda v: or_(v, "none"), lambda v: or_(v, "nil"), omitted=_side)
        ),
        pools={"nick": ["nil", "none", "a"], "label": ["nil", "none", "a"]},
    )
for _side in ("old", "new"):
    scenario(
        f"defaults_differ_omitted_{_side}",
        columns=lambda: [sa.Column("level", sa.Integer(), nullable=False, server_default=sa.text("3"))],
        changes=lambda side=_side: [
            ChangeType(
                table="things",
                column="level",
                new=sa.Column("rank", sa.Integer(), server_default=sa.text("7")),
                forward=lambda row: row.level * 10,
                backward=lambda row: sa.func.coalesce(x.div(row.rank, 10), 0),
                omitted=side,
            )
        ],
        model=model(
            one(
                Cell(name="level", nullable=False, default=3),
                Cell(name="rank", default=7),
                lambda v: None if v is None else v * 10,
                lambda v: 0 if v is None else v // 10,
                omitted=_side,
            )
        ),
        pools={"level": [0, 3, 4, -1], "rank": [7, 0, 30, 35, -5]},
    )
scenario(
    "new_default_applied",
    columns=lambda: [sa.Column("level", sa.Integer(), nullable=False)],
    changes=lambda: [
        ChangeType(
            table="things",
            column="level",
            new=sa.Column("rank", sa.Integer(), server_default=sa.text("7"), nullable=False),
            forward=lambda row: row.level + 1,
            backward=lambda row: row["rank"] - 1,
        )
    ],
    model=model(
        one(
            Cell(name="level", nullable=False),
            Cell(name="rank", default=7, nullable=False),
            lambda v: None if v is None else v + 1,
            lambda v: None if v is None else v - 1,
        )
    ),
    pools={"level": [0, 6, 7], "rank": [0, 6, 7]},
)
