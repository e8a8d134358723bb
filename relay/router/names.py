"""AE titles between a hospital and the network: local on one side, published on the other.

The two title fields of an A-ASSOCIATE-RQ are all that changes (DESIGN §4). An A-ASSOCIATE-AC
repeats what its request said, which each hop's upper layer sees to.
"""

import attrs

from relay.dicom.pdu import AAssociateRQ
from relay.router.devices import Device


def to_network(request: AAssociateRQ, caller: Device | None) -> AAssociateRQ:
    """`request` of a local device as the network sees it; None is the Router's own command line."""
    return request if caller is None else attrs.evolve(request, calling=caller.published)


def to_device(request: AAssociateRQ, called: Device) -> AAssociateRQ:
    """`request` from the network as the device that it calls sees it."""
    return attrs.evolve(request, called=called.ae_title)
