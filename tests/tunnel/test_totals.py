"""What all sessions have done together."""

import attrs

from relay.signalling.messages import EndReason
from relay.tunnel.flows import TunnelStatistics
from relay.tunnel.reader import ReaderStatistics
from relay.tunnel.totals import Totals, Way
from relay.tunnel.writer import WriterStatistics


@attrs.define
class Session:
    """One that has done so much, each way."""

    chunks: int

    def statistics(self) -> TunnelStatistics:
        n = self.chunks
        return TunnelStatistics(
            WriterStatistics(n, 10 * n, n, 1, 10, 2), ReaderStatistics(n, 100 * n, n, 3)
        )


def test_what_runs_counts_with_what_is_over() -> None:
    totals = Totals()
    first, second = Session(5), Session(1)
    totals.begun(first.statistics)
    totals.begun(second.statistics)
    assert (totals.live, totals.unacknowledged_bytes) == (2, 20)
    totals.over(first.statistics, EndReason.FINISHED)
    second.chunks = 2
    assert totals.ways() == (Way(7, 70, 7, 4), Way(7, 700, 7, 6))
    assert (totals.live, totals.ended) == (1, {EndReason.FINISHED: 1})


def test_of_one_that_nobody_has_ended_the_peer_knows_nothing_any_more() -> None:
    totals = Totals()
    one = Session(0)
    totals.begun(one.statistics)
    totals.over(one.statistics, None)
    assert totals.ended == {EndReason.PEER_FORGOT: 1}
    assert totals.ways() == (Way(retries=2), Way(retries=3))
