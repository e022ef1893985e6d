"""A user's flag becomes the time of disabling; the quota becomes a number."""

import sqlalchemy as sa

from contraflow import Change, ChangeType, Lens, TransformColumns
from contraflow.expressions import to_integer, to_text, utcnow

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

change = Change(
    TransformColumns(
        table="users",
        columns=[sa.Column("disabled_at", sa.DateTime(), nullable=True)],
        lens=Lens(
            old=["enabled"],
            new=["disabled_at"],
            forward=lambda row: {"disabled_at": sa.case((row.enabled, sa.null()), else_=utcnow())},
            backward=lambda row: {"enabled": row.disabled_at.is_(None)},
        ),
    ),
    ChangeType(
        table="users",
        column="quota",
        new=sa.Column("quota_limit", sa.BigInteger(), nullable=True),
        forward=lambda row: to_integer(row.quota),
        backward=lambda row: to_text(row.quota_limit),
        lossy=True,  # "007" is 7
    ),
)
upgrade, downgrade = change.upgrade, change.downgrade
