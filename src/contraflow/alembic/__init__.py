"""Contraflow inside Alembic: `Change` for revisions, and what runs it within a user's migration environment."""

# Imported for what it registers with Alembic.
from contraflow.alembic import autogenerate as autogenerate
from contraflow.alembic.change import Change

__all__ = ["Change"]
