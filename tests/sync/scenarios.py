"""Lenses as they are declared, each beside its meaning written by hand in plain Python.

The oracle sees only the handwork. Nothing on that side calls the library.
"""

# ruff: noqa: DTZ001, E501, PLW0108  # tables of cases; lens time is UTC without a zone
from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from contraflow import expressions as x
from contraflow.lens import Lens
from contraflow.operations.base import Operation
from contraflow.operations.columns import AddColumn, ChangeType, DropColumn, RenameColumn, TransformColumns
from tests.sync.oracle import NOW, Cell, Group, Model

__all__ = ["KEY", "NOTE", "SCENARIOS", "Scenario", "by_name"]

KEY = "id"
NOTE = "note"
SERVERS = ("sqlite", "postgresql", "mysql", "mariadb")
Columns = Callable[[str], list[sa.Column[Any]]]

TEXTS: list[Any] = [
    "", " ", "a", "A", "b", "a ", " a", " A b", "Ann Lee", "ann lee", "x y z", "it's", "50%", "%s", "a\\b", "é", "e\u0301", "𝒳 🙂", ":x",
]  # fmt: skip
"""Values that differ only in case, spaces or composition, and characters that break quoting."""
# A lossy lens is told from a wrong one by values that have one image: small pools of such values find more.
CASES: list[Any] = ["a", "A", "b", "B", "É"]
SPACED: list[Any] = ["a", " a", "a ", "b", ""]
BOTH: list[Any] = ["a", "A", " a", " A", "b"]
NAMES: list[Any] = ["a b", "A b", "a", "a ", " a", "b a", "", "a b c"]
PARTS: list[Any] = ["a", "A", "b", "", "a b", " "]


def time6() -> sa.types.TypeEngine[Any]:
    """A time with microseconds everywhere."""
    return sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One table: its old shape, what is declared, and what that means."""

    name: str
    columns: Columns
    changes: Callable[[], Sequence[Sequence[Operation]]]
    model: Callable[[str], Model]
    pools: Mapping[str, Sequence[Any]]
    """Values to write, by column; NULL is added where the column's own schema allows it."""
    products: tuple[str, ...] = SERVERS
    kinds: tuple[str, ...] | None = None
    """Kinds of server, where a product is not enough."""
    table: str = "things"
    rowid: bool = True
    keyed: bool = True
    composite: bool = False
    setup: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def more_key(self) -> list[sa.Column[Any]]:
        """Further columns of the primary key."""
        return [sa.Column("Tenant", sa.String(10), primary_key=True)] if self.composite else []

    def more_key_values(self) -> dict[str, Any]:
        """What rows hold there."""
        return {"Tenant": "t'1"} if self.composite else {}

    def runs_on(self, kind: str, product: str) -> bool:
        """Whether the scenario is meant for a server."""
        return product in self.products and (self.kinds is None or kind in self.kinds)


SCENARIOS: list[Scenario] = []


def scenario(name: str, **arguments: Any) -> None:
    """Add a scenario."""
    model = arguments.pop("model")
    if not callable(model):
        fixed = model
        arguments["model"] = lambda _product: fixed
    else:
        arguments["model"] = model
    columns = arguments.pop("columns")
    arguments["columns"] = columns if _takes_product(columns) else lambda _product: columns()
    changes = arguments.pop("changes")
    SCENARIOS.append(Scenario(name=name, changes=lambda: _nested(changes()), **arguments))


def _takes_product(function: Callable[..., Any]) -> bool:
    return function.__code__.co_varnames[:1] == ("product",)


def _nested(operations: Sequence[Any]) -> list[list[Operation]]:
    return [list(part) for part in operations] if isinstance(operations[0], (list, tuple)) else [list(operations)]


def by_name(name: str) -> Scenario:
    """The scenario of that name."""
    return next(found for found in SCENARIOS if found.name == name)


def model(*groups: Group, shared: Sequence[str] = ()) -> Model:
    """A model with these groups, and the column no lens touches; ``shared`` columns are known to both releases."""
    return Model(groups=groups, others=(Cell(name=NOTE, default="-"),), shared=frozenset(shared))


# --- text by hand -------------------------------------------------------------------------------------------------

_UPPER, _LOWER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"


def lower_(text: str | None) -> str | None:
    """The letters A-Z in lower case."""
    return None if text is None else "".join(_LOWER[_UPPER.index(c)] if c in _UPPER else c for c in text)


def upper_(text: str | None) -> str | None:
    """The letters a-z in upper case."""
    return None if text is None else "".join(_UPPER[_LOWER.index(c)] if c in _LOWER else c for c in text)


def trim_(text: str | None) -> str | None:
    """Without spaces at both ends."""
    if text is None:
        return None
    while text.startswith(" "):
        text = text[1:]
    while text.endswith(" "):
        text = text[:-1]
    return text


def first_(text: str | None) -> str | None:
    """Up to the first space."""
    if text is None:
        return None
    place = text.find(" ")
    return text if place < 0 else text[:place]


def last_(text: str | None) -> str | None:
    """Behind the first space."""
    if text is None:
        return None
    place = text.find(" ")
    return "" if place < 0 else text[place + 1 :]


def or_(value: Any, other: Any) -> Any:
    """``value``, or ``other`` if it is NULL."""
    return other if value is None else value


# --- rename -------------------------------------------------------------------------------------------------------


def _rename(old: str, new: str, **options: Any) -> Group:
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
    model=model(_rename("name", "title")),
    pools={"name": TEXTS, "title": TEXTS},
)
scenario(
    "rename_required",
    columns=lambda: [sa.Column("name", sa.String(60), nullable=False)],
    changes=lambda: [RenameColumn(table="things", old="name", new="title")],
    model=model(_rename("name", "title", nullable=False)),
    pools={"name": TEXTS, "title": TEXTS},
)
_DEFAULT = "it's 50% :x"
scenario(
    "rename_required_default",
    columns=lambda: [sa.Column("name", sa.String(60), nullable=False, server_default=_DEFAULT)],
    changes=lambda: [RenameColumn(table="things", old="name", new="title")],
    model=model(_rename("name", "title", nullable=False, default=_DEFAULT)),
    pools={"name": [*TEXTS, _DEFAULT], "title": [*TEXTS, _DEFAULT]},
)
for _side in ("old", "new"):
    scenario(
        f"rename_default_omitted_{_side}",
        columns=lambda: [sa.Column("name", sa.String(60), server_default="x")],
        changes=lambda side=_side: [RenameColumn(table="things", old="name", new="title", omitted=side, winner=side)],
        model=model(_rename("name", "title", default="x", omitted=_side, winner=_side)),
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
    model=model(_rename(_ODD_OLD, _ODD_NEW), _rename("select", "from")),
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
    model=model(_rename("name", "title", nullable=False)),
    pools={name: ["a", "A", "a ", "á", "b", "B", "e\u0301", "é", "", " "] for name in ("name", "title")},
)
scenario(
    "rename_without_rowid",
    products=("sqlite",),
    rowid=False,
    columns=lambda: [sa.Column("name", sa.String(60), nullable=False)],
    changes=lambda: [RenameColumn(table="things", old="name", new="title")],
    model=model(_rename("name", "title", nullable=False)),
    pools={"name": TEXTS, "title": TEXTS},
)
scenario(
    "rename_without_key",
    keyed=False,
    columns=lambda: [sa.Column("name", sa.String(60), nullable=False)],
    changes=lambda: [RenameColumn(table="things", old="name", new="title")],
    model=model(_rename("name", "title", nullable=False)),
    pools={"name": TEXTS, "title": TEXTS},
)
scenario(
    "rename_composite_key",
    composite=True,
    columns=lambda: [sa.Column("name", sa.String(60))],
    changes=lambda: [RenameColumn(table="things", old="name", new="title")],
    model=model(_rename("name", "title")),
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
    model=model(*(_rename(f"o_{name}", f"n_{name}") for name in _TYPES)),
    pools={f"{side}_{name}": pool for name, (_, pool) in _TYPES.items() for side in "on"},
)


# --- one column into one ------------------------------------------------------------------------------------------


def _one(
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
        model=model(_one(Cell(name="email"), Cell(name="folded"), lower_, lambda v: v, winner=_side)),
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
    model=model(_one(Cell(name="email", nullable=False), Cell(name="folded", nullable=False), lower_, upper_)),
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
    model=model(_one(Cell(name="name"), Cell(name="padded"), lambda v: v, trim_)),
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
        _one(
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
    model=model(_one(Cell(name="nick"), Cell(name="nickname", nullable=False), lambda v: or_(v, ""), lambda v: v)),
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
    model=model(_one(Cell(name="nick", nullable=False), Cell(name="nickname"), lambda v: v, lambda v: or_(v, ""))),
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
        _one(
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
            _one(
                Cell(name="nick"), Cell(name="label"), lambda v: or_(v, "none"), lambda v: or_(v, "nil"), omitted=_side
            )
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
            _one(
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
        _one(
            Cell(name="level", nullable=False),
            Cell(name="rank", default=7, nullable=False),
            lambda v: None if v is None else v + 1,
            lambda v: None if v is None else v - 1,
        )
    ),
    pools={"level": [0, 6, 7], "rank": [0, 6, 7]},
)


# --- flags, times, units, amounts ---------------------------------------------------------------------------------

_TIMES = [dt.datetime(2020, 1, 1), dt.datetime(1969, 7, 20, 20, 17, 40, 123_456)]


def _flag_model(default: Any) -> Model:
    return model(
        Group(
            old=(Cell(name="enabled", nullable=False, default=default),),
            new=(Cell(name="disabled_at"),),
            forward=lambda row: {"disabled_at": None if row["enabled"] else or_(row["disabled_at"], NOW)},
            backward=lambda row: {"enabled": row["disabled_at"] is None},
            forward_random=True,
        )
    )


for _default in (None, True):
    scenario(
        f"flag_to_time{'_default' if _default else ''}",
        columns=lambda default=_default: [
            sa.Column("enabled", sa.Boolean(), nullable=False, server_default=sa.true() if default else None)
        ],
        changes=lambda: [
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
            )
        ],
        model=_flag_model(_default),
        pools={"enabled": [True, False], "disabled_at": _TIMES},
    )
scenario(
    "time_to_flag",
    columns=lambda: [sa.Column("deleted_at", time6())],
    changes=lambda: [
        TransformColumns(
            table="things",
            columns=[sa.Column("deleted", sa.Boolean(), nullable=False)],
            lens=Lens(
                old=["deleted_at"],
                new=["deleted"],
                forward=lambda row: {"deleted": row.deleted_at.is_not(None)},
                backward=lambda row: {
                    "deleted_at": sa.case((row.deleted, sa.func.coalesce(row.deleted_at, x.utcnow())), else_=None)
                },
            ),
        )
    ],
    model=model(
        Group(
            old=(Cell(name="deleted_at"),),
            new=(Cell(name="deleted", nullable=False),),
            forward=lambda row: {"deleted": row["deleted_at"] is not None},
            backward=lambda row: {"deleted_at": or_(row["deleted_at"], NOW) if row["deleted"] else None},
            backward_random=True,
        )
    ),
    pools={"deleted_at": _TIMES, "deleted": [True, False]},
)
scenario(
    "unit",
    columns=lambda: [sa.Column("seconds", sa.Integer(), nullable=False)],
    changes=lambda: [
        ChangeType(
            table="things",
            column="seconds",
            new=sa.Column("millis", sa.BigInteger(), nullable=False),
            forward=lambda row: row.seconds * 1000,
            backward=lambda row: x.div(row.millis, 1000),
        )
    ],
    model=model(
        _one(
            Cell(name="seconds", nullable=False),
            Cell(name="millis", nullable=False),
            lambda v: None if v is None else v * 1000,
            lambda v: None if v is None else v // 1000,
        )
    ),
    pools={"seconds": [0, 1, -1, 2**31 - 1], "millis": [0, 999, 1000, 1500, -1, -1000]},
)


def _tenths(value: Any) -> Decimal:
    return Decimal(value).quantize(Decimal("0.1"), rounding=ROUND_HALF_UP)


def _money(places: int) -> Callable[[str], Model]:
    def make(product: str) -> Model:
        new = Cell(name="amount")
        if places == 1 and product != "sqlite":
            new = Cell(name="amount", store=_tenths)
        return model(
            _one(
                Cell(name="cents"),
                new,
                lambda v: None if v is None else Decimal(v) / 100,
                lambda v: None if v is None else int((v * 100).quantize(Decimal(1), rounding=ROUND_HALF_UP)),
            )
        )

    return make


for _places in (2, 1):
    scenario(
        "money" if _places == 2 else "money_rounded_when_stored",
        columns=lambda: [sa.Column("cents", sa.BigInteger())],
        changes=lambda places=_places: [
            ChangeType(
                table="things",
                column="cents",
                new=sa.Column("amount", sa.Numeric(12, places)),
                forward=lambda row: x.decimal_shift(row.cents, 2),
                backward=lambda row: x.to_minor_units(row.amount, 2),
            )
        ],
        model=_money(_places),
        pools={
            "cents": [0, 1, 105, -105, 110, 999_999_999],
            "amount": [Decimal("0.0"), Decimal("1.1"), Decimal("-1.1"), Decimal("10.5")],
        },
    )
_EPOCH = dt.datetime(1970, 1, 1)


def _clock(product: str) -> Model:
    def store(value: dt.datetime) -> dt.datetime:
        if product == "mariadb" or product == "mysql":
            rounded = value + dt.timedelta(milliseconds=500) if product == "mysql" else value
            return rounded.replace(microsecond=0)
        return value

    return model(
        _one(
            Cell(name="micros"),
            Cell(name="at", store=store),
            lambda v: None if v is None else _EPOCH + dt.timedelta(microseconds=v),
            lambda v: None if v is None else (v - _EPOCH) // dt.timedelta(microseconds=1),
        )
    )


scenario(
    "time_rounded_when_stored",
    columns=lambda: [sa.Column("micros", sa.BigInteger())],
    changes=lambda: [
        ChangeType(
            table="things",
            column="micros",
            new=sa.Column("at", sa.DateTime()),
            forward=lambda row: x.from_epoch_us(row.micros),
            backward=lambda row: x.epoch_us(row.at),
        )
    ],
    model=_clock,
    pools={
        "micros": [0, 1_500_000, 1_499_999, 1_000_000, 1_700_000_000_123_456, 86_399_999_999],
        "at": [_EPOCH, dt.datetime(2024, 2, 29, 12), dt.datetime(1970, 1, 1, 0, 0, 1)],
    },
)
_STATUS = {"A": "active", "B": "blocked's", "c": "closed\\"}
scenario(
    "recode",
    columns=lambda: [sa.Column("status", sa.String(1), nullable=False, server_default="A")],
    changes=lambda: [
        ChangeType(
            table="things",
            column="status",
            new=sa.Column("state", sa.String(20), nullable=False, server_default="active"),
            forward=lambda row: x.recode(row.status, _STATUS),
            backward=lambda row: x.recode(row.state, {new: old for old, new in _STATUS.items()}),
        )
    ],
    model=model(
        _one(
            Cell(name="status", nullable=False, default="A"),
            Cell(name="state", nullable=False, default="active"),
            lambda v: {"A": "active", "B": "blocked's", "c": "closed\\"}.get(v),
            lambda v: {"active": "A", "blocked's": "B", "closed\\": "c"}.get(v),
        )
    ),
    pools={"status": ["A", "B", "c"], "state": ["active", "blocked's", "closed\\"]},
)
scenario(
    "text_to_integer",
    columns=lambda: [sa.Column("code", sa.String(20))],
    changes=lambda: [
        ChangeType(
            table="things",
            column="code",
            new=sa.Column("number", sa.Integer()),
            forward=lambda row: x.to_integer(row.code),
            backward=lambda row: x.to_text(row.number),
        )
    ],
    model=model(
        _one(
            Cell(name="code"),
            Cell(name="number"),
            lambda v: int(v) if v is not None and v.lstrip("-").isdigit() and v.count("-") <= 1 else None,
            lambda v: None if v is None else str(v),
        )
    ),
    pools={"code": ["007", "7", "-7", "0", "-0", "none", "", "7 ", " 7"], "number": [7, 0, -7, 12]},
)

# --- several columns ----------------------------------------------------------------------------------------------

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

# --- groups -------------------------------------------------------------------------------------------------------

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
    model=model(_one(Cell(name="a"), Cell(name="c"), lower_, trim_)),
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
        _rename("name", "title", nullable=False),
        *_flag_model(True).groups,
        _one(
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
        "disabled_at": _TIMES,
        "quota": ["10", "010", "none"],
        "quota_limit": [10, 0],
        "legacy": [0, 1],
        "kind": ["plain", "odd"],
    },
)
