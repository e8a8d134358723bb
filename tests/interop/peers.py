"""Real DICOM devices as processes on loopback, for every test that needs one.

Acceptors are asynchronous context managers that give a `Peer`; leaving the block ends the process
and its children:

    async with peers.storescp(tmp_path) as peer:
        result = await peers.storescu(peer, file)

Requestors are plain coroutines that run one program to its end and give a `Result`. They all take
a `Peer`, or an `Address` for whatever else listens (a Router, a server in the test itself).
"""

from tests.interop.dcmtk import (
    dcmprscp,
    dcmprscu,
    dcmqrscp,
    echoscu,
    findscu,
    getscu,
    movescu,
    storescp,
    storescu,
    wlmscpfs,
)
from tests.interop.orthanc import (
    OrthancPeer,
    orthanc,
)
from tests.interop.part10 import (
    data_set_of,
)
from tests.interop.processes import (
    ENVIRONMENT,
    LOOPBACK,
    RUN_DEADLINE,
    Address,
    Peer,
    PeerError,
    Result,
    Target,
    free_port,
    run,
    stop,
)
from tests.interop.pynetdicom_peers import (
    pynetdicom,
    pynetdicom_archive,
    pynetdicom_asker,
    pynetdicom_holder,
    pynetdicom_scp,
    pynetdicom_scu,
    pynetdicom_services,
    pynetdicom_tls_scp,
)

__all__ = [
    "ENVIRONMENT",
    "LOOPBACK",
    "RUN_DEADLINE",
    "Address",
    "OrthancPeer",
    "Peer",
    "PeerError",
    "Result",
    "Target",
    "data_set_of",
    "dcmprscp",
    "dcmprscu",
    "dcmqrscp",
    "echoscu",
    "findscu",
    "free_port",
    "getscu",
    "movescu",
    "orthanc",
    "pynetdicom",
    "pynetdicom_archive",
    "pynetdicom_asker",
    "pynetdicom_holder",
    "pynetdicom_scp",
    "pynetdicom_scu",
    "pynetdicom_services",
    "pynetdicom_tls_scp",
    "run",
    "stop",
    "storescp",
    "storescu",
    "wlmscpfs",
]
