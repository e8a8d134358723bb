"""`relay demo`: a Bridge, two hospitals and real images on this machine."""

from relay.cli.demo.command import demo

__all__ = ["demo"]
