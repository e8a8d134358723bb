"""What the configuration says of the federation, as plain values: relay.toml's are in relay.config.

The defaults are those of relay.toml; the command line's tests hold the two together.
"""

from enum import Enum

import attrs


class Merging(Enum):
    """What becomes of what several devices have to say of one patient, study, series or object."""

    MERGED = "merged"  # one answer of all of them, once each has said its last
    STREAMED = "streamed"  # the first answer, at once


class OnIncomplete(Enum):
    """The final status of a query that a device has not answered in full, where others have."""

    FAILURE = "failure"  # Cxxx, with an Error Comment that names the device
    SUCCESS = "success"  # 0000, for callers that throw everything away on a failure


@attrs.frozen(slots=True, kw_only=True)
class FederationSettings:
    """Times in seconds.

    `ae_title`: the title by which devices of this hospital call it; empty: there is none.
    `narrowing`: a query needs a key that narrows it. `maximum_answers`: of one device to one query.
    `queries`, `retrieves`: at one device at once, whoever asks. `site_wait`: for an association
    with a device, and for each next word of it. `store_to`: the local AE title of the device that
    takes what is stored to the federation; empty: nothing is.
    """

    ae_title: str = "FEDERATION"
    answers: Merging = Merging.MERGED
    on_incomplete: OnIncomplete = OnIncomplete.FAILURE
    narrowing: bool = True
    maximum_answers: int = 5000
    queries: int = 4
    retrieves: int = 4
    site_wait: float = 30.0
    store_to: str = ""
