"""The command ``contraflow`` itself, and how its commands are declared: with the options that all of them take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from contraflow.cli.output import Output
from contraflow.cli.session import Common, Session

__all__ = ["COMMON", "cli", "command", "common_option", "this_session", "with_options"]

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Options = Sequence[Callable[[Any], Any]]


def _keep(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Remember a common option. Given after the command's name, it counts for more than before it."""
    common = context.ensure_object(Common)
    if value not in (None, (), False):
        setattr(common, str(parameter.name), value)


def common_option(*names: str, **settings: Any) -> Callable[[_Function], _Function]:
    """An option whose value the command's :class:`~contraflow.cli.session.Common` gets."""
    return click.option(*names, callback=_keep, expose_value=False, **settings)


COMMON = (
    common_option("-c", "--config", metavar="FILE", help="alembic.ini or pyproject.toml.  [default: as Alembic]"),
    common_option("-n", "--name", metavar="SECTION", help="Alembic's section of alembic.ini.  [default: alembic]"),
    common_option("--url", metavar="URL", help="The database, instead of sqlalchemy.url.  [env: CONTRAFLOW_URL]"),
    common_option("-x", "arguments", multiple=True, metavar="KEY=VALUE", help="Passed on to env.py; repeatable."),
    common_option("--revision", metavar="OLD:NEW", help="The upgrade.  [default: the open one, or what waits]"),
    common_option("--json", "as_json", is_flag=True, help="One JSON document on stdout, all else on stderr."),
)
"""What every command on a live database takes."""


def with_options(options: _Options) -> Callable[[_Function], _Function]:
    """A decorator: the options, in this order."""

    def decorate(function: _Function) -> _Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


class _InOrder(click.Group):
    """Lists its commands in the order of an upgrade, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        """The names of the commands, as they were declared."""
        return list(self.commands)


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="contraflow", message="contraflow %(version)s")
@with_options(COMMON)
def cli() -> None:
    """Zero-downtime upgrades: two releases of a service side by side on one live database.

    \b
    The way of an upgrade:
      contraflow check        what would stand in its way
      contraflow upgrade      expand, migrate and verify (as alembic upgrade head does)
      ...                     replace the nodes of the old release, one by one
      contraflow contract     remove the old shape
    Until then contraflow rollback goes back to the schema of before.

    \b
    Examples:
      contraflow -c service/alembic.ini upgrade
      contraflow --url postgresql://app@db.internal/app status
    """


def command(
    name: str, *options: Callable[[Any], Any], common: _Options = COMMON
) -> Callable[[Callable[..., None]], click.Command]:
    """A command that takes the common options, and whose function gets a Session as its first argument."""

    def decorate(function: Callable[..., None]) -> click.Command:
        def run(**arguments: Any) -> None:
            function(this_session(), **arguments)

        run.__doc__ = function.__doc__
        return cli.command(name)(with_options((*options, *common))(run))

    return decorate


def this_session() -> Session:
    """What the command that runs works on."""
    common = click.get_current_context().ensure_object(Common)
    return Session(common=common, output=Output(as_json=common.as_json))
