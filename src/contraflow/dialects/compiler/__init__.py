"""Lens expressions to SQL: the same meaning on every server, each in that server's words.

:class:`Compiler` says what is the same, and one module a kind of server what differs.
"""

from __future__ import annotations

from contraflow.dialects.compiler.base import Compiler, plain_literal
from contraflow.dialects.compiler.mysql import MariaDBCompiler, MySQLCompiler
from contraflow.dialects.compiler.postgresql import CockroachDBCompiler, PostgreSQLCompiler
from contraflow.dialects.compiler.sqlite import SQLiteCompiler

__all__ = ["Compiler", "compiler_for", "plain_literal"]

_COMPILERS: dict[str, type[Compiler]] = {
    "postgresql": PostgreSQLCompiler,
    "cockroachdb": CockroachDBCompiler,
    "mysql": MySQLCompiler,
    "mariadb": MariaDBCompiler,
    "sqlite": SQLiteCompiler,
}


def compiler_for(product: str, *, utf8mb4: bool = False) -> Compiler:
    """The compiler for a server product (``Profile.product``). Raises ``KeyError`` for an unknown one.

    ``utf8mb4`` tells those of MySQL and MariaDB that every column of text is in that character set.
    """
    compiler = _COMPILERS[product]
    return compiler(utf8mb4=True) if utf8mb4 and issubclass(compiler, MySQLCompiler) else compiler()
