"""Flags, times, units and amounts."""

# ruff: noqa: DTZ001, PLW0108  from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import sqlalchemy as sa

from contraflow import expressions as x
from contraflow.lens import Lens
from contraflow.operations.columns import ChangeType, TransformColumns
from tests.sync.oracle import NOW, Cell, Group, Model
from tests.sync.scenarios.base import model, or_, scenario, time6
from tests.sync.scenarios.single import one

__all__ = ["TIMES", "flag_model"]

TIMES = [dt.datetime(2020, 1, 1), dt.datetime(1969, 7, 20, 20, 17, 40, 123_456)]


def flag_model(default: Any) -> Model:
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
        model=flag_model(_default),
        pools={"enabled": [True, False], "disabled_at": TIMES},
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
    pools={"deleted_at": TIMES, "deleted": [True, False]},
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
        one(
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
            one(
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
        one(
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
        one(
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
        one(
            Cell(name="code"),
            Cell(name="number"),
            lambda v: int(v) if v is not None and v.lstrip("-").isdigit() and v.count("-") <= 1 else None,
            lambda v: None if v is None else str(v),
        )
    ),
    pools={"code": ["007", "7", "-7", "0", "-0", "none", "", "7 ", " 7"], "number": [7, 0, -7, 12]},
)
