"""What stands below `[router]` and `[bridge]` in `relay.toml`: each table is a part of its own."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import attrs

from relay.values import (
    ADDRESSES_OR_NONE,
    AE_TITLE_OR_NONE,
    FILE,
    FLAG,
    HOSTS,
    PAGES,
    Address,
    Key,
    count,
    number,
    one_of,
)


class Answers(Enum):
    """What becomes of what several devices have to say of one study."""

    MERGED = "merged"
    STREAMED = "streamed"


class OnIncomplete(Enum):
    """The final status of a query that some device has not answered in full."""

    FAILURE = "failure"
    SUCCESS = "success"


@attrs.frozen(slots=True)
class FederationConfig:
    """The `[router.federation]` table."""

    ae_title: Annotated[
        str,
        Key(
            AE_TITLE_OR_NONE,
            "The AE title by which devices here query and retrieve from all devices that they may"
            ' use, here and in other hospitals, as from one. "": there is none.',
            default='"FEDERATION"',
        ),
    ]
    answers: Annotated[
        Answers,
        Key(
            one_of(Answers),
            "merged: one answer for each patient, study, series or object, once every device has"
            " answered or run out of time. streamed: the first answer at once, later ones of the"
            " same are dropped.",
            default='"merged"',
        ),
    ]
    on_incomplete: Annotated[
        OnIncomplete,
        Key(
            one_of(OnIncomplete),
            "How a query ends that a device has not answered in full. failure: with status C001H"
            " and an Error Comment that names the device. success: with 0000H, for callers that"
            " throw all answers away on a failure.",
            default='"failure"',
        ),
    ]
    narrowing: Annotated[
        bool,
        Key(
            FLAG,
            "true: a query needs at least one key with a value that narrows it, so that nobody asks"
            " every hospital for all that it has.",
            default="true",
        ),
    ]
    maximum_answers: Annotated[
        int,
        Key(
            count(1, 100_000),
            "How many answers of one device to one query are taken. Where there are more, the query"
            " is incomplete, and says so.",
            default="5000",
        ),
    ]
    queries: Annotated[
        int,
        Key(
            count(1, 64),
            "How many queries of the federation one device has at once, whoever asks; others wait"
            " their turn.",
            default="4",
        ),
    ]
    retrieves: Annotated[
        int,
        Key(
            count(1, 64),
            "How many retrieves of the federation one device has at once, whoever asks, and what is"
            " stored to it by DICOMweb; others wait their turn, for five minutes at the most.",
            default="4",
        ),
    ]
    site_wait: Annotated[
        float,
        Key(
            number(1, 600, "seconds"),
            "How long a device is waited for, in seconds: for its turn, for the association, and"
            " for each next answer. Then it counts as slow, and the query as incomplete.",
            default="30",
        ),
    ]
    store_to: Annotated[
        str,
        Key(
            AE_TITLE_OR_NONE,
            "Which device of another hospital, by its AE title here, gets what devices here store"
            ' to the federation. "": storing there is refused.',
            default='""',
            example='"NORTH_PACS"',
        ),
    ]


@attrs.frozen(slots=True)
class DicomwebConfig:
    """The `[router.dicomweb]` table."""

    listen: Annotated[
        tuple[Address, ...],
        Key(
            ADDRESSES_OR_NONE,
            "Where to serve DICOMweb to viewers and programs of this hospital: one address, or a"
            " list. Nowhere unless it is given.",
            default="[]",
            example='"0.0.0.0:8443"',
        ),
    ]
    certificate: Annotated[
        Path | None,
        Key(
            FILE,
            "The TLS certificate chain for DICOMweb, PEM. Without it, it is served as plain HTTP,"
            " which is for loopback addresses and for a reverse proxy that does the TLS.",
            example='"/etc/relay/dicomweb.pem"',
        ),
    ]
    private_key: Annotated[
        Path | None,
        Key(
            FILE,
            "The certificate's private key, PEM, readable by this process alone, without a"
            " passphrase.",
            example='"/etc/relay/dicomweb-key.pem"',
        ),
    ]
    origins: Annotated[
        tuple[str, ...],
        Key(
            PAGES,
            "Origins of web viewers whose scripts may use it in a browser (CORS), exactly as a"
            " browser names them. Pages of its own origin always may.",
            default="[]",
            example='["https://viewer.example.org"]',
        ),
    ]
    open: Annotated[
        bool,
        Key(
            FLAG,
            "true: nobody on this machine needs a token (`relay token add`). Only with loopback"
            " addresses.",
            default="false",
        ),
    ]
    maximum_requests: Annotated[
        int,
        Key(
            count(1, 256),
            "How many requests are answered at once; more wait for some seconds, and are then told"
            " to come again. Each takes some MiB of memory, and 200 for an object with very many"
            " attributes.",
            default="16",
        ),
    ]


_CERTIFICATE = Key(
    FILE,
    "The TLS certificate chain for the pages' own port, PEM. Needed unless only this machine"
    " reaches it.",
    example='"/etc/relay/pages.pem"',
)
_PRIVATE_KEY = Key(
    FILE,
    "The certificate's private key, PEM, readable by this process alone, without a passphrase.",
    example='"/etc/relay/pages-key.pem"',
)
_HOSTS = Key(
    HOSTS,
    "Further host names by which browsers ask for the pages, beside this machine's own and those in"
    " the certificate. Without a certificate: those of a reverse proxy on this machine, which"
    " serves them over https.",
    default="[]",
    example='["relay.example.org"]',
)


@attrs.frozen(slots=True)
class RouterPagesConfig:
    """The `[router.pages]` table."""

    listen: Annotated[
        tuple[Address, ...],
        Key(
            ADDRESSES_OR_NONE,
            "Where to serve the pages and the REST to people of this hospital: one address, or a"
            " list. Nowhere unless it is given; `relay init` gives 127.0.0.1:8080. Another than"
            " this machine's own needs a certificate.",
            default="[]",
            example='"127.0.0.1:8080"',
        ),
    ]
    certificate: Annotated[Path | None, _CERTIFICATE]
    private_key: Annotated[Path | None, _PRIVATE_KEY]
    hosts: Annotated[tuple[str, ...], _HOSTS]


@attrs.frozen(slots=True)
class BridgePagesConfig:
    """The `[bridge.pages]` table."""

    on_network_port: Annotated[
        bool,
        Key(
            FLAG,
            "true: the pages and the REST are served where Routers come, at `url`, to who signs in"
            " there. false: only on a port of their own, if at all.",
            default="true",
        ),
    ]
    listen: Annotated[
        tuple[Address, ...],
        Key(
            ADDRESSES_OR_NONE,
            "A port of their own for the pages and the REST: one address, or a list. Another than"
            " this machine's own needs a certificate.",
            default="[]",
            example='"127.0.0.1:8081"',
        ),
    ]
    certificate: Annotated[Path | None, _CERTIFICATE]
    private_key: Annotated[Path | None, _PRIVATE_KEY]
    hosts: Annotated[tuple[str, ...], _HOSTS]
