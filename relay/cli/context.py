"""What every command has in common: which configuration, how errors end it, `--json`.

Exit status 0: it worked. 1: it did not, and one line says why. 2: it was asked wrongly.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import attrs
import click

from relay import config_file
from relay.config import BridgeConfig, Config, Mode, RouterConfig
from relay.errors import ConfigurationError, RelayError, leaves
from relay.log import escape

F = TypeVar("F", bound=Callable[..., Any])


@attrs.define(slots=True)
class Invocation:
    """Where the options that stand before or behind the command's name are gathered."""

    mode: Mode | None = None
    path: Path | None = None

    @property
    def file(self) -> Path:
        """The configuration file to use. Raises ConfigurationError if there is none."""
        return config_file.find(self.path)

    def load(self) -> Config:
        """The table of `mode`, or the only one. Raises ConfigurationError."""
        return config_file.load(self.file, self.mode)

    def bridge(self) -> BridgeConfig:
        """The `[bridge]` table. Raises ConfigurationError, also if the file has none."""
        loaded = config_file.load(self.file, Mode.BRIDGE)
        assert isinstance(loaded, BridgeConfig)
        return loaded

    def router(self) -> RouterConfig:
        """The `[router]` table. Raises ConfigurationError, also if the file has none."""
        loaded = config_file.load(self.file, Mode.ROUTER)
        assert isinstance(loaded, RouterConfig)
        return loaded


class Failure(click.ClickException):
    """One line on stderr and an exit status."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        # click has it as a class variable, for it knows no exception with two.
        self.__dict__["exit_code"] = exit_code

    def show(self, file: Any = None) -> None:
        click.echo(f"relay: {escape(self.message)}", err=True)


def _remember_path(ctx: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    if value is not None:
        ctx.ensure_object(Invocation).path = value


def _remember_mode(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(Invocation).mode = Mode(value)


def configuration_options(environment: str | None = None) -> list[click.Parameter]:
    """`--config` and `--mode`, which every command takes, before or behind its name.

    Only the place before the name looks at the `environment` variable: else that would override
    what was given there.
    """
    return [
        click.Option(
            ["--config"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            envvar=environment,
            expose_value=False,
            callback=_remember_path,
            help="The configuration (RELAY_CONFIG; else ./relay.toml, /etc/relay/relay.toml).",
        ),
        click.Option(
            ["--mode"],
            type=click.Choice([mode.value for mode in Mode]),
            expose_value=False,
            callback=_remember_mode,
            help="Which table of the configuration.",
        ),
    ]


class Command(click.Command):
    """A command that takes the configuration's options and ends on our errors with one line."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        taken = {parameter.name for parameter in self.params}
        self.params += [option for option in configuration_options() if option.name not in taken]

    def invoke(self, ctx: click.Context) -> Any:
        with errors_in_one_line():
            return super().invoke(ctx)


class Group(click.Group):
    """A group of such commands."""

    command_class = Command
    group_class = type


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Our errors become one line and an exit status; any other is a bug and shows its traceback."""
    try:
        yield
    except RelayError as error:
        raise _failure(error) from error
    except ExceptionGroup as group:
        # A person wants the error itself.
        first = next(leaves(group))
        if isinstance(first, RelayError):
            raise _failure(first) from group
        raise


def _failure(error: RelayError) -> Failure:
    return Failure(
        str(error) or type(error).__name__, 2 if isinstance(error, ConfigurationError) else 1
    )


def json_option(command: F) -> F:
    """`--json`, passed on as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(command)
