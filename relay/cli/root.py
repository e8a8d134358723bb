"""The command `relay` itself: its options, and where its commands are."""

from importlib import import_module
from typing import Any

import click

from relay import __version__, log
from relay.cli.context import Group, Invocation, configuration_options, errors_in_one_line

# Where each command is, loaded when it is asked for: all of them together bring in every library
# that Relay uses, which takes longer than most commands do.
COMMANDS = {
    "init": "relay.cli.initialise:init",
    "invite": "relay.cli.bridge:invite",
    "invitation": "relay.cli.bridge:invitation",
    "router": "relay.cli.bridge:router",
    "provider": "relay.cli.provider:provider",
    "enroll": "relay.cli.router:enroll",
    "device": "relay.cli.device:device",
    "alias": "relay.cli.alias:alias",
    "destination": "relay.cli.destination:destination",
    "peer": "relay.cli.peer:peer",
    "directory": "relay.cli.directory:directory",
    "grant": "relay.cli.grant:grant",
    "token": "relay.cli.token:token",
    "person": "relay.cli.person:person",
    "apply": "relay.cli.apply:apply",
    "status": "relay.cli.status:status",
    "echo": "relay.cli.scu:echo",
    "send": "relay.cli.send:send",
    "find": "relay.cli.scu:find",
    "queue": "relay.cli.queue:queue",
    "audit": "relay.cli.audit:audit",
    "backup": "relay.cli.backup:backup",
    "restore": "relay.cli.backup:restore",
    "doctor": "relay.cli.doctor:doctor",
    "demo": "relay.cli.demo:demo",
}


class Root(Group):
    """A group that finds its commands in COMMANDS."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        found: Any = getattr(import_module(module), attribute)
        assert isinstance(found, click.Command)
        return found


@click.group(
    cls=Root,
    invoke_without_command=True,
    params=configuration_options("RELAY_CONFIG"),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="relay")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Joins hospitals into one DICOM network.

    With --mode and no command: run the Bridge or the Router. Each command speaks to the process
    that runs on the same configuration.
    """
    invocation = ctx.ensure_object(Invocation)
    if ctx.invoked_subcommand is not None:
        # What a command prints is its answer: of the log only what went wrong, and on stderr.
        log.configure(level="warning", json=False)
        return
    if invocation.mode is None:
        raise click.UsageError("say --mode bridge or --mode router to run, or give a command")
    with errors_in_one_line():
        from relay.cli.run import run  # the whole program

        run(invocation.load())
