"""Lenses of one table that share columns, chain, or stand beside each other."""

from __future__ import annotations

import sqlalchemy as sa

from contraflow import expressions as x
from contraflow.lens import Lens
from contraflow.operations.columns import AddColumn, ChangeType, DropColumn, RenameColumn, TransformColumns
from tests.sync.oracle import Cell, Group
from tests.sync.scenarios.base import (
    BOTH,
    CASES,
    NAMES,
    PARTS,
    TEXTS,
    first_,
    last_,
    lower_,
    model,
    scenario,
    time6,
    trim_,
    upper_,
)
from tests.sync.scenarios.single import one, rename
from tests.sync.scenarios.values import TIMES, flag_model

__all__: list[str] = []

scenario(
    "chain_of_three",
    columns=lambda: [sa.Column("a", sa.String(60))],
    changes=lambda: [
        [
            ChangeType(
                table="things",
                column="a",
                new=sa.Column("b", sa.String(60)),
                forward=lambda row: x.lower(row.a),
                backward=lambda row: row.b,
            )
        ],
        [
            ChangeType(
                table="things",
                column="b",
                new=sa.Column("c", sa.String(60)),
                forward=lambda row: row.b,
                backward=lambda row: x.trim(row.c),
            )
        ],
    ],
    model=model(one(Cell(name="a"), Cell(name="c"), lower_, trim_)),
    pools={"a": BOTH, "c": BOTH},
)
scenario(
    "chain_of_renames_then_split",
    columns=lambda: [sa.Column("a", sa.String(60), nullable=False)],
    changes=lambda: [
        [RenameColumn(table="things", old="a", new="b")],
        [RenameColumn(table="things", old="b", new="c")],
        [
            TransformColumns(
                table="things",
                columns=[
                    sa.Column("d", sa.String(60), nullable=False),
                    sa.Column("e", sa.String(60), nullable=False),
                ],
                lens=Lens(
                    old=["c"],
                    new=["d", "e"],
                    forward=lambda row: {"d": x.before(row.c, " "), "e": x.after(row.c, " ")},
                    backward=lambda row: {"c": x.concat(row.d, " ", row.e)},
                ),
            )
        ],
    ],
    model=model(
        Group(
            old=(Cell(name="a", nullable=False),),
            new=(Cell(name="d", nullable=False), Cell(name="e", nullable=False)),
            forward=lambda row: {"d": first_(row["a"]), "e": last_(row["a"])},
            backward=lambda row: {"a": None if row["d"] is None or row["e"] is None else row["d"] + " " + row["e"]},
        )
    ),
    pools={"a": NAMES, "d": PARTS, "e": PARTS},
)
scenario(
    "shared_source",
    columns=lambda: [sa.Column("a", sa.String(60), nullable=False)],
    changes=lambda: [
        AddColumn(
            table="things",
            column=sa.Column("c", sa.String(60), nullable=False),
            value=lambda row: x.upper(row.a),
            reads=["a"],
            keep="track",
        ),
        RenameColumn(table="things", old="a", new="b"),
    ],
    model=model(
        Group(
            old=(Cell(name="a", nullable=False),),
            new=(Cell(name="c", nullable=False), Cell(name="b", nullable=False)),
            forward=lambda row: {"c": upper_(row["a"]), "b": row["a"]},
            backward=lambda row: {"a": row["b"]},
        )
    ),
    pools={"a": CASES, "b": CASES, "c": CASES},
)
scenario(
    "many_groups",
    columns=lambda: [
        sa.Column("name", sa.String(60), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False, server_default=sa.true()),
        sa.Column("quota", sa.String(20)),
        sa.Column("legacy", sa.Integer(), nullable=False),
    ],
    changes=lambda: [
        [
            RenameColumn(table="things", old="name", new="title"),
            TransformColumns(
                table="things",
                columns=[sa.Column("disabled_at", time6())],
                lens=Lens(
                    old=["enabled"],
                    new=["disabled_at"],
                    forward=lambda row: {
                        "disabled_at": sa.case((row.enabled, None), else_=sa.func.coalesce(row.disabled_at, x.utcnow()))
                    },
                    backward=lambda row: {"enabled": row.disabled_at.is_(None)},
                ),
            ),
        ],
        [
            ChangeType(
                table="things",
                column="quota",
                new=sa.Column("quota_limit", sa.Integer()),
                forward=lambda row: x.to_integer(row.quota),
                backward=lambda row: x.to_text(row.quota_limit),
            ),
            DropColumn(table="things", column="legacy", value=lambda _row: 0),
            AddColumn(table="things", column=sa.Column("kind", sa.String(20), nullable=False, server_default="plain")),
        ],
    ],
    model=model(
        rename("name", "title", nullable=False),
        *flag_model(True).groups,
        one(
            Cell(name="quota"),
            Cell(name="quota_limit"),
            lambda v: int(v) if v is not None and v.isdigit() else None,
            lambda v: None if v is None else str(v),
        ),
        Group(
            old=(Cell(name="legacy", nullable=False),),
            backward=lambda _row: {"legacy": 0},
            once=frozenset({"legacy"}),
        ),
        Group(
            new=(Cell(name="kind", nullable=False, default="plain"),),
            forward=lambda _row: {"kind": "plain"},
            once=frozenset({"kind"}),
        ),
    ),
    pools={
        "name": TEXTS[:8],
        "title": TEXTS[:8],
        "enabled": [True, False],
        "disabled_at": TIMES,
        "quota": ["10", "010", "none"],
        "quota_limit": [10, 0],
        "legacy": [0, 1],
        "kind": ["plain", "odd"],
    },
)
