"""A project gets a handle; its cost code goes."""

import sqlalchemy as sa

from contraflow import AddColumn, Change, DropColumn
from contraflow.expressions import lower

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

change = Change(
    AddColumn(
        table="projects",
        column=sa.Column("handle", sa.String(64), nullable=False),
        reads=["name"],
        value=lambda row: lower(row.name),
        keep="fill",
    ),
    DropColumn(table="projects", column="cost_code", value=lambda _row: sa.literal("none")),
)
upgrade, downgrade = change.upgrade, change.downgrade
