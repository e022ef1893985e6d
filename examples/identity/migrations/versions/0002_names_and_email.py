"""A user's full name becomes a first and a last name; email_addr becomes email."""

import sqlalchemy as sa

from contraflow import Change, Lens, RenameColumn, TransformColumns
from contraflow.expressions import after, before, concat, substr, trim

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

names = Lens(
    old=["full_name"],
    new=["first_name", "last_name"],
    forward=lambda row: {
        "first_name": before(row.full_name, " "),
        "last_name": after(row.full_name, " "),
    },
    # The old column holds 200 characters, the two new ones together more.
    backward=lambda row: {"full_name": substr(trim(concat(row.first_name, " ", row.last_name)), 1, 200)},
    lossy=True,  # spaces at the ends of a full name are not kept
)

change = Change(
    RenameColumn(table="users", old="email_addr", new="email"),
    TransformColumns(
        table="users",
        columns=[
            sa.Column("first_name", sa.String(200), nullable=False),
            sa.Column("last_name", sa.String(200), nullable=False),
        ],
        lens=names,
    ),
)
upgrade, downgrade = change.upgrade, change.downgrade
