"""`relay init`: writes a commented configuration that holds, and never over one that is there."""

import os
from pathlib import Path
from urllib.parse import urlsplit

import click

from relay import config_file, example
from relay.cli.context import Command, Failure, Invocation
from relay.cli.output import say
from relay.config import Mode, keys
from relay.example import quote

# The file may hold a proxy's address and paths of keys: nobody else's business.
_FILE_MODE = 0o600

# Plain HTTP, which nobody but the proxy on the same machine is to reach.
BEHIND_PROXY = "127.0.0.1:8080"
# Where a Router's pages are: on this machine, until somebody gives them a certificate.
PAGES = "127.0.0.1:8080"
_PAGES_KEY = "pages.listen"


@click.command("init", cls=Command)
@click.option("--url", help="Bridge: the https address at which Routers reach it.")
@click.option("--certificate", type=click.Path(), help="Its TLS certificate chain, PEM.")
@click.option("--private-key", type=click.Path(), help="The certificate's key, PEM.")
@click.option("--behind-proxy", is_flag=True, help="Bridge: a reverse proxy does the TLS.")
@click.option("--ae-title", help="Router: its own AE title (default: RELAY).")
@click.option("--proxy", metavar="URL", help="Router: the hospital's outbound proxy.")
@click.option("--ca-file", type=click.Path(), help="Router: more authorities to trust, PEM.")
@click.option("--listen", metavar="HOST:PORT", help="Where to listen.")
@click.option("--tls-listen", metavar="HOST:PORT", help="Router: the same, for DICOM over TLS.")
@click.option(
    "--pages",
    metavar="HOST:PORT",
    help=f"Where to serve the pages, beside a Bridge's network port (Router: {PAGES}).",
)
@click.option("--device-ca-file", type=click.Path(), help="Router: trusted for devices, PEM.")
@click.option("--data-dir", type=click.Path(), help="Where database and keys live.")
@click.pass_obj
def init(
    invocation: Invocation,
    url: str | None,
    certificate: str | None,
    private_key: str | None,
    behind_proxy: bool,
    ae_title: str | None,
    proxy: str | None,
    ca_file: str | None,
    listen: str | None,
    tls_listen: str | None,
    pages: str | None,
    device_ca_file: str | None,
    data_dir: str | None,
) -> None:
    """Write a commented relay.toml (or the file that --config names)."""
    if invocation.mode is None:
        raise click.UsageError("say --mode bridge or --mode router")
    path = invocation.path or Path("relay.toml")
    given = {
        "url": url,
        "certificate": certificate,
        "private_key": private_key,
        "ae_title": ae_title,
        "proxy": proxy,
        "ca_file": ca_file,
        "listen": listen,
        "tls_listen": tls_listen,
        "device_ca_file": device_ca_file,
        "data_dir": data_dir or _data_dir(),
        _PAGES_KEY: pages or (PAGES if invocation.mode is Mode.ROUTER else None),
    }
    values = {key: quote(value) for key, value in given.items() if value is not None}
    if invocation.mode is Mode.BRIDGE:
        if url is None:
            raise click.UsageError("a Bridge needs --url https://…, where Routers will reach it")
        values.setdefault("listen", quote(_listen(url, behind_proxy)))
        if behind_proxy:
            values["behind_proxy"] = "true"
    foreign = values.keys() - keys(invocation.mode) - {_PAGES_KEY}
    if foreign:
        option = min(foreign).replace("_", "-")
        raise click.UsageError(f"a {invocation.mode.value.capitalize()} takes no --{option}")
    text = example.table(invocation.mode, values)
    config_file.read(
        text.encode(), path, invocation.mode
    )  # a mistake is said before anything is there
    _write(path, text)
    say(f"wrote {path}")
    _next(invocation.mode, path)


def _data_dir() -> str | None:
    """The system's place for root; beside the configuration for everyone else, who cannot write
    there."""
    return None if os.geteuid() == 0 else "data"


def _listen(url: str, behind_proxy: bool) -> str:
    """The port of `url`; behind a proxy, which has that one, a port for the proxy alone."""
    if behind_proxy:
        return BEHIND_PROXY
    try:
        port = urlsplit(url).port
    except ValueError:
        port = None  # the URL is checked where it is read
    return f"0.0.0.0:{port or 443}"


def _write(path: Path, text: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
    except FileExistsError as error:
        raise Failure(
            f"{path} is there already, and is not overwritten: edit it, or move it away", 1
        ) from error
    except OSError as error:
        raise Failure(f"{path}: cannot be written: {error.strerror}", 1) from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def _next(mode: Mode, path: Path) -> None:
    """What to do now."""
    say("next:")
    say(f"  relay --mode {mode.value} --config {path}")
    say("  open the link that it shows (first sign-in), or go on here:")
    if mode is Mode.BRIDGE:
        say(f"  relay invite HOSPITAL --config {path}")
    else:
        say(f"  relay enroll INVITATION --config {path}")
