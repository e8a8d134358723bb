"""What `relay doctor` says of DICOMweb: whether it is on, for whom, and what will not work."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from relay.cli import certificate, doctor_machine
from relay.cli.doctor_calls import Known
from relay.config import RouterConfig
from relay.providers import Finding

_ANEW = "start the Router anew: it runs with what relay.toml said before"


def examine(config: RouterConfig) -> Iterator[Finding]:
    """What the configuration shows, whether the Router runs or not."""
    said = config.dicomweb
    if not said.listen:
        yield Finding("DICOMweb is off", True, "`listen` of [router.dicomweb] turns it on")
        return
    if said.certificate is not None and said.private_key is not None:
        server, lost = "the Router", "viewers refuse to talk to it"
        yield certificate.lasting(said.certificate, server=server, lost=lost)
        yield doctor_machine.key_of(said.certificate, said.private_key)
        yield doctor_machine.private("DICOMweb's private key", said.private_key)
        return
    for address in said.listen:
        if not address.is_loopback:
            yield Finding(
                f"DICOMweb without TLS on {address}",
                False,
                "tokens and patients' data go over the network as they are, and browsers let no"
                " page of https use it: give certificate and private_key of [router.dicomweb]; or"
                " a loopback address, and a proxy on this machine that does the TLS",
            )


def running(
    config: RouterConfig,
    web: Mapping[str, Any] | None,
    tokens: Iterable[Mapping[str, Any]],
    known: Known,
) -> Iterator[Finding]:
    """What the running Router shows: `web` is of GET /v1/status, `tokens` GET /v1/tokens."""
    said = config.dicomweb
    if web is None:
        if said.listen:
            yield Finding("DICOMweb is on", False, _ANEW)
        return
    rows = list(tokens)
    what = f"DICOMweb at {', '.join(web['urls'])}"
    same = (bool(said.listen), said.open, list(said.origins))
    if same != (True, web["open"], web["origins"]):
        yield Finding(what, False, _ANEW)
        return
    yield Finding(what, True, _for_whom(web, len(rows)))
    if not rows and not web["open"]:
        yield Finding(
            "somebody has a token for DICOMweb",
            False,
            "without one nobody may use it: relay token add NAME",
        )
    for row in rows:
        if row["device"] and known.device(row["device"]) is None:
            yield Finding(
                f"token {row['name']} calls as {row['device']}",
                False,
                "that is no device here any more, so that each request is refused: relay device"
                f" add, or relay token remove '{row['name']}' and a new one",
            )
    yield from _store_to(config.federation.store_to, known)


def _for_whom(web: Mapping[str, Any], tokens: int) -> str:
    words = [f"{tokens} token{'' if tokens == 1 else 's'}"]
    if web["open"]:
        words.append("`open`: whoever is on this machine may use it without one")
    if web["origins"]:
        words.append(f"pages of {', '.join(web['origins'])} may use it")
    return "; ".join(words)


def _store_to(title: str, known: Known) -> Iterator[Finding]:
    """Whether what is stored to the federation has where to go (relay.router.dicomweb.stow)."""
    if not title:
        return
    what, device = f"what is stored to the federation goes to {title}", known.device(title)
    if device is None and known.published(title) is None:
        advice = "`store_to` is neither a device here nor one that another hospital publishes"
        yield Finding(what, False, advice)
    elif device is not None and not device["federation"]:
        advice = "by DICOMweb it does not: `relay device add` that one with --federation"
        yield Finding(what, False, advice)
