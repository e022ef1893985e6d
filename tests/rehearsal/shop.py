"""A project with what real schemas have: keys of every kind, links, defaults, checks, and columns of many types."""

from __future__ import annotations

from pathlib import Path

from tests.alembic.project import Project

TABLES = """
def upgrade():
    op.create_table(
        "customers",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("code", sa.String(12), nullable=False, unique=True),
        sa.Column("full_name", sa.String(80), nullable=False),
        sa.Column("notes", sa.Text()),
        sa.Column("level", sa.SmallInteger(), nullable=False, server_default="3"),
        sa.Column("referred_by", sa.Integer(), sa.ForeignKey("customers.id")),
        sa.Column("joined", sa.DateTime(), nullable=False, server_default=sa.func.now()),
        sa.CheckConstraint(
            "notes NOT IN ('Ann Lee', 'Bo', 'Cher', 'NULL', '0', '007', '-1', '1e3', 'true', '<b>')",
            name="customers_notes",
        ),
    )
    op.create_table(
        "orders",
        sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("customer_id", sa.Integer(), sa.ForeignKey("customers.id"), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("total", sa.Numeric(12, 2), nullable=False),
        sa.Column("weight", sa.Float()),
        sa.Column("due", sa.Date()),
        sa.Column("paid", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(10), nullable=False, server_default="open"),
        sa.Column("extra", sa.JSON()),
        sa.Column("scan", sa.LargeBinary()),
        sa.UniqueConstraint("customer_id", "number", name="orders_number"),
    )
    op.create_table(
        "order_tags",
        sa.Column("order_id", sa.BigInteger(), sa.ForeignKey("orders.id"), primary_key=True, autoincrement=False),
        sa.Column("tag", sa.String(20), primary_key=True),
    )
    op.create_table("audit", sa.Column("what", sa.String(4)))


def downgrade():
    for table in ("audit", "order_tags", "orders", "customers"):
        op.drop_table(table)
"""

CHANGES = """
change = Change(
    TransformColumns(
        table="customers",
        columns=[
            sa.Column("given", sa.String(80), nullable=False),
            sa.Column("family", sa.String(80), nullable=False),
        ],
        lens=Lens(
            old=["full_name"],
            new=["given", "family"],
            forward=lambda row: {"given": before(row.full_name, " "), "family": after(row.full_name, " ")},
            backward=lambda row: {"full_name": substr(trim(concat(row.given, " ", row.family)), 1, 80)},
            lossy=True,
        ),
    ),
    RenameColumn(table="customers", old="level", new="tier"),
    RenameColumn(table="orders", old="status", new="state"),
    RenameColumn(table="orders", old="total", new="amount"),
    AddColumn(table="orders", column=sa.Column("currency", sa.String(3), nullable=False, server_default="EUR")),
    DropColumn(table="orders", column="weight", value=lambda _row: sa.null()),
)
upgrade, downgrade = change.upgrade, change.downgrade
"""


def shop(folder: Path) -> Project:
    """The project, for no database in particular."""
    project = Project(folder, "sqlite://")
    project.revision("0001", None, TABLES)
    project.revision("0002", "0001", "from contraflow.expressions import substr\n" + CHANGES)
    return project
