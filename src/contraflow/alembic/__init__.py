"""Contraflow inside Alembic: `Change` for revisions, and what runs it within a user's migration environment."""

from contraflow.alembic.change import Change

__all__ = ["Change"]
