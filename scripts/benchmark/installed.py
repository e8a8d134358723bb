"""Relay as it runs where nothing but Relay is installed.

    python -m scripts.benchmark.installed --mode router …

A benchmark has Pillow beside it, for its plot, and requests and greenlet for what tests use.
pydicom and structlog load these into each process where they find them: memory that whoever has
installed Relay does not have.
"""

import sys

PROGRAM = (sys.executable, "-m", "scripts.benchmark.installed")

_NOT_RELAYS = ("PIL", "requests", "greenlet")


def leave_out() -> None:
    """Have imports of what Relay does not depend on fail, as where it is not installed."""
    for name in _NOT_RELAYS:
        sys.modules[name] = None  # type: ignore[assignment]


def main() -> None:
    """Be `relay`."""
    leave_out()
    from relay import cli

    cli.main(prog_name="relay")


if __name__ == "__main__":
    main()
