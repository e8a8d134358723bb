"""What an association has carried."""

import attrs

from relay.router.traffic import Traffic


@attrs.define
class Side:
    bytes_sent: int = 0


def test_it_counts_and_follows() -> None:
    traffic, requestor, acceptor = Traffic(), Side(), Side()
    assert (traffic.outward, traffic.inward) == (0, 0)
    traffic.count(5)
    traffic.follow(requestor, acceptor)
    requestor.bytes_sent, acceptor.bytes_sent = 3, 100
    assert (traffic.outward, traffic.inward) == (105, 3)
