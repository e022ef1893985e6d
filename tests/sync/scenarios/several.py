"""Several columns into several, added and dropped ones."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from contraflow import expressions as x
from contraflow.lens import Lens
from contraflow.operations.columns import AddColumn, DropColumn, TransformColumns
from tests.sync.oracle import Cell, Group
from tests.sync.scenarios.base import NAMES, PARTS, first_, last_, lower_, model, or_, scenario, trim_

__all__: list[str] = []

for _required in (True, False):
    scenario(
        "split_required" if _required else "split_optional",
        columns=lambda required=_required: [sa.Column("full_name", sa.String(60), nullable=not required)],
        changes=lambda required=_required: [
            TransformColumns(
                table="things",
                columns=[
                    sa.Column("first", sa.String(60), nullable=not required),
                    sa.Column("last", sa.String(60), nullable=not required),
                ],
                lens=Lens(
                    old=["full_name"],
                    new=["first", "last"],
                    forward=lambda row: {
                        "first": x.before(row.full_name, " "),
                        "last": x.after(row.full_name, " "),
                    },
                    backward=lambda row: {
                        "full_name": sa.case(
                            (sa.and_(row.first.is_(None), row.last.is_(None)), None),
                            else_=x.trim(
                                x.concat(sa.func.coalesce(row.first, ""), " ", sa.func.coalesce(row.last, ""))
                            ),
                        )
                    },
                ),
            )
        ],
        model=model(
            Group(
                old=(Cell(name="full_name", nullable=not _required),),
                new=(Cell(name="first", nullable=not _required), Cell(name="last", nullable=not _required)),
                forward=lambda row: {"first": first_(row["full_name"]), "last": last_(row["full_name"])},
                backward=lambda row: {
                    "full_name": None
                    if row["first"] is None and row["last"] is None
                    else trim_(or_(row["first"], "") + " " + or_(row["last"], ""))
                },
            )
        ),
        pools={"full_name": NAMES, "first": PARTS, "last": PARTS},
    )
scenario(
    "merge",
    columns=lambda: [sa.Column("first", sa.String(60), nullable=False), sa.Column("last", sa.String(60))],
    changes=lambda: [
        TransformColumns(
            table="things",
            columns=[sa.Column("full_name", sa.String(130), nullable=False)],
            lens=Lens(
                old=["first", "last"],
                new=["full_name"],
                forward=lambda row: {"full_name": x.trim(x.concat(row.first, " ", sa.func.coalesce(row.last, "")))},
                backward=lambda row: {
                    "first": x.before(row.full_name, " "),
                    "last": sa.case((x.contains(row.full_name, " "), x.after(row.full_name, " ")), else_=None),
                },
            ),
        )
    ],
    model=model(
        Group(
            old=(Cell(name="first", nullable=False), Cell(name="last")),
            new=(Cell(name="full_name", nullable=False),),
            forward=lambda row: {
                "full_name": None if row["first"] is None else trim_(row["first"] + " " + or_(row["last"], ""))
            },
            backward=lambda row: {
                "first": first_(row["full_name"]),
                "last": last_(row["full_name"]) if " " in (row["full_name"] or "") else None,
            },
        )
    ),
    pools={"full_name": NAMES, "first": PARTS, "last": PARTS},
)
scenario(
    "swap",
    columns=lambda: [sa.Column("x", sa.Integer()), sa.Column("y", sa.Integer())],
    changes=lambda: [
        TransformColumns(
            table="things",
            columns=[sa.Column("lat", sa.Integer()), sa.Column("lon", sa.Integer())],
            lens=Lens(
                old=["x", "y"],
                new=["lat", "lon"],
                forward=lambda row: {"lat": row.y, "lon": row.x},
                backward=lambda row: {"x": row.lon, "y": row.lat},
            ),
        )
    ],
    model=model(
        Group(
            old=(Cell(name="x"), Cell(name="y")),
            new=(Cell(name="lat"), Cell(name="lon")),
            forward=lambda row: {"lat": row["y"], "lon": row["x"]},
            backward=lambda row: {"x": row["lon"], "y": row["lat"]},
        )
    ),
    pools={name: [0, 1, 2] for name in ("x", "y", "lat", "lon")},
)


def _get(document: Any, key: str, kind: type) -> Any:
    value = document.get(key) if isinstance(document, dict) else None
    return value if isinstance(value, kind) and not isinstance(value, bool) else None


def _put(document: Any, **values: Any) -> dict[str, Any]:
    result = dict(document) if isinstance(document, dict) else {}
    for key, value in values.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = value
    return result


_DOCUMENTS = [
    {},
    {"theme": "it's"},
    {"theme": "dark", "size": 3, "k": [1, {"a": None}]},
    {"size": "3"},
    {"theme": 5, "z": 1},
]
for _required in (True, False):
    scenario(
        "json_to_columns" if _required else "json_to_columns_optional",
        columns=lambda required=_required: [sa.Column("settings", sa.JSON(), nullable=not required)],
        changes=lambda required=_required: [
            TransformColumns(
                table="things",
                columns=[sa.Column("theme", sa.String(40)), sa.Column("size", sa.Integer())],
                lens=Lens(
                    old=["settings"],
                    new=["theme", "size"],
                    forward=lambda row: {
                        "theme": x.json_text(row.settings, "theme"),
                        "size": x.json_integer(row.settings, "size"),
                    },
                    backward=lambda row: {
                        "settings": x.json_put(x.json_put(row.settings, "theme", row.theme), "size", row.size)
                    },
                    omitted=None if required else "old",
                ),
            )
        ],
        model=model(
            Group(
                old=(Cell(name="settings", nullable=not _required),),
                new=(Cell(name="theme"), Cell(name="size")),
                forward=lambda row: {
                    "theme": _get(row["settings"], "theme", str),
                    "size": _get(row["settings"], "size", int),
                },
                backward=lambda row: {"settings": _put(row["settings"], theme=row["theme"], size=row["size"])},
                omitted=None if _required else "old",
            )
        ),
        pools={"settings": _DOCUMENTS, "theme": ["dark", "Dark", "it's", ""], "size": [0, 3, -1]},
    )
scenario(
    "columns_to_json",
    columns=lambda: [sa.Column("theme", sa.String(40)), sa.Column("size", sa.Integer(), nullable=False)],
    changes=lambda: [
        TransformColumns(
            table="things",
            columns=[sa.Column("settings", sa.JSON(), nullable=False)],
            lens=Lens(
                old=["theme", "size"],
                new=["settings"],
                forward=lambda row: {
                    "settings": x.json_put(x.json_put(row.settings, "theme", row.theme), "size", row.size)
                },
                backward=lambda row: {
                    "theme": x.json_text(row.settings, "theme"),
                    "size": sa.func.coalesce(x.json_integer(row.settings, "size"), 0),
                },
            ),
        )
    ],
    model=model(
        Group(
            old=(Cell(name="theme"), Cell(name="size", nullable=False)),
            new=(Cell(name="settings", nullable=False),),
            forward=lambda row: {"settings": _put(row["settings"], theme=row["theme"], size=row["size"])},
            backward=lambda row: {
                "theme": _get(row["settings"], "theme", str),
                "size": or_(_get(row["settings"], "size", int), 0),
            },
        )
    ),
    pools={"settings": _DOCUMENTS, "theme": ["dark", "Dark", "it's", "a\\b", ""], "size": [0, 3, -1]},
)

# --- added and dropped columns ------------------------------------------------------------------------------------

for _keep in ("fill", "track"):
    scenario(
        f"add_computed_{_keep}",
        columns=lambda: [sa.Column("name", sa.String(60), nullable=False)],
        changes=lambda keep=_keep: [
            AddColumn(
                table="things",
                column=sa.Column("slug", sa.String(60), nullable=False),
                value=lambda row: x.replace(x.lower(row.name), " ", "-"),
                reads=["name"],
                keep=keep,
            )
        ],
        model=model(
            Group(
                old=(Cell(name="name", nullable=False),),
                new=(Cell(name="slug", nullable=False),),
                forward=lambda row: {
                    "slug": None if row["name"] is None else (lower_(row["name"]) or "").replace(" ", "-")
                },
                once=frozenset({"slug"}) if _keep == "fill" else frozenset(),
            ),
            shared=("name",),
        ),
        pools={"name": NAMES, "slug": ["a", "A", "a b", "a-b", ""]},
    )
    scenario(
        f"drop_computed_{_keep}",
        columns=lambda: [
            sa.Column("name", sa.String(60), nullable=False),
            sa.Column("slug", sa.String(60), nullable=False),
        ],
        changes=lambda keep=_keep: [
            DropColumn(table="things", column="slug", value=lambda row: x.lower(row.name), reads=["name"], keep=keep)
        ],
        model=model(
            Group(
                old=(Cell(name="slug", nullable=False),),
                new=(Cell(name="name", nullable=False),),
                backward=lambda row: {"slug": lower_(row["name"])},
                once=frozenset({"slug"}) if _keep == "fill" else frozenset(),
            ),
            shared=("name",),
        ),
        pools={"name": NAMES, "slug": ["a", "A", "a b", "a-b", ""]},
    )
scenario(
    "add_constant",
    columns=lambda: [sa.Column("other", sa.Integer())],
    changes=lambda: [
        AddColumn(table="things", column=sa.Column("kind", sa.String(20), nullable=False, server_default="it's 50%"))
    ],
    model=model(
        Group(
            new=(Cell(name="kind", nullable=False, default="it's 50%"),),
            forward=lambda _row: {"kind": "it's 50%"},
            once=frozenset({"kind"}),
        )
    ),
    pools={"kind": ["it's 50%", "other", ""]},
)
scenario(
    "drop_constant",
    columns=lambda: [sa.Column("legacy", sa.String(20), nullable=False)],
    changes=lambda: [DropColumn(table="things", column="legacy", value=lambda _row: "gone\\")],
    model=model(
        Group(
            old=(Cell(name="legacy", nullable=False),),
            backward=lambda _row: {"legacy": "gone\\"},
            once=frozenset({"legacy"}),
        )
    ),
    pools={"legacy": ["gone\\", "a", ""]},
)
