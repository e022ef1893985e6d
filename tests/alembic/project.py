"""A migration environment as Alembic's own `init` writes it, with revisions of the test's."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

HEADER = """\
import sqlalchemy as sa
from alembic import op
from contraflow.alembic import Change
from contraflow.expressions import after, before, concat, trim
from contraflow.lens import Lens
from contraflow.operations.columns import AddColumn, ChangeType, DropColumn, RenameColumn, TransformColumns
from contraflow.operations.comments import ChangeComment
from contraflow.operations.tables import CreateTable, DropTable, RenameTable

"""

USERS = """
def upgrade():
    op.create_table(
        "users",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("fullname", sa.String(100), nullable=False),
        sa.Column("mail", sa.String(100)),
    )
    op.execute("INSERT INTO users (id, fullname, mail) VALUES (1, 'Ada Lovelace', 'ada@example.org')")
    op.execute("INSERT INTO users (id, fullname, mail) VALUES (2, 'Cher', NULL)")


def downgrade():
    op.drop_table("users")
"""

RENAME_NAME = """
change = Change(RenameColumn(table="users", old="fullname", new="display_name"))
upgrade, downgrade = change.upgrade, change.downgrade
"""

RENAME_MAIL = """
change = Change(RenameColumn(table="users", old="mail", new="email"))
upgrade, downgrade = change.upgrade, change.downgrade
"""

PLAIN = """
def upgrade():
    pass


def downgrade():
    pass
"""


class Project:
    """A folder with alembic.ini (or pyproject.toml), env.py and revisions, all for one database."""

    def __init__(self, folder: Path, url: sa.URL | str, template: str = "generic") -> None:
        self.folder = folder
        self.url = sa.make_url(url)
        folder.mkdir(parents=True, exist_ok=True)
        self.ini = folder / "alembic.ini"
        self.toml = folder / "pyproject.toml"
        config = Config(str(self.ini), toml_file=str(self.toml), stdout=io.StringIO())
        config.cmd_opts = None
        quiet(config)
        command.init(config, str(folder / "migrations"), template=template)
        shown = self.url.render_as_string(hide_password=False).replace("%", "%%")
        line = re.compile(r"^sqlalchemy.url = .*$", re.MULTILINE)
        self.ini.write_text(line.sub(lambda _: f"sqlalchemy.url = {shown}", self.ini.read_text()))

    def configure(self, **settings: object) -> None:
        """Write the [contraflow] section of alembic.ini anew."""
        text = self.ini.read_text().partition("[contraflow]")[0].rstrip()
        lines = "".join(f"{key} = {value}\n" for key, value in settings.items())
        self.ini.write_text(f"{text}\n\n[contraflow]\n{lines}")

    def revision(
        self, name: str, down: str | Sequence[str] | None, body: str, *, depends_on: str | None = None
    ) -> Path:
        """Write a revision; body is what follows the imports."""
        parent = tuple(down) if isinstance(down, (list, tuple)) else down
        path = self.folder / "migrations" / "versions" / f"{name}.py"
        path.write_text(
            f'"""Revision {name}."""\n\n{HEADER}'
            f"revision, down_revision = {name!r}, {parent!r}\nbranch_labels, depends_on = None, {depends_on!r}\n{body}"
        )
        return path

    def config(self, output: io.StringIO | None = None) -> Config:
        """What `alembic -c alembic.ini` reads."""
        return Config(str(self.ini), toml_file=str(self.toml), stdout=io.StringIO(), output_buffer=output)

    def directory(self) -> ScriptDirectory:
        """The revisions."""
        return ScriptDirectory.from_config(self.config())

    def upgrade(self, target: str = "head") -> None:
        """`alembic upgrade target`."""
        command.upgrade(self.config(), target)

    def downgrade(self, target: str) -> None:
        """`alembic downgrade target`."""
        command.downgrade(self.config(), target)

    def sql(self, verb: str, target: str) -> str:
        """`alembic upgrade --sql target` (or downgrade)."""
        output = io.StringIO()
        getattr(command, verb)(self.config(output), target, sql=True)
        return output.getvalue()


def quiet(config: Config) -> None:
    """Keep `alembic init` from printing."""
    config.__dict__["messaging_opts"] = {"quiet": True}


def two_changes(folder: Path, url: sa.URL | str, template: str = "generic") -> Project:
    """A plain revision that makes the users table, and an upgrade of two Changes."""
    project = Project(folder, url, template)
    project.revision("0001", None, USERS)
    project.revision("0002", "0001", RENAME_NAME)
    project.revision("0003", "0002", RENAME_MAIL)
    return project
