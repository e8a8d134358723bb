"""The command line: `relay`."""

from relay.cli.root import main

__all__ = ["main"]
