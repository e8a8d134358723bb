"""The graph of how fast data moves."""

from typing import Any

from relay.router.pages.chart import HEIGHT, LEAST_SCALE, WIDTH, chart


def rates(*samples: tuple[int, int], maximum: int = 180) -> dict[str, Any]:
    return {
        "interval": 5.0,
        "maximum": maximum,
        "samples": [
            {"time": 5.0 * n, "sent": sent, "received": received}
            for n, (sent, received) in enumerate(samples)
        ],
    }


def points(line: str) -> list[tuple[float, float]]:
    return [tuple(map(float, point.split(",")[:2])) for point in line.split()]  # type: ignore[misc]


def test_nothing_measured_is_an_empty_graph() -> None:
    drawn = chart(rates())
    assert drawn.empty
    assert (drawn.sent_now, drawn.minutes) == (0, 15)


def test_the_newest_is_at_the_right_edge_and_the_most_is_within() -> None:
    drawn = chart(rates((0, 0), (LEAST_SCALE * 3, LEAST_SCALE), (LEAST_SCALE, 0)))
    sent = points(drawn.sent)
    assert sent[-1][0] == WIDTH
    assert sent[0][0] > 0, "a short history begins where it belongs"
    assert drawn.scale == LEAST_SCALE * 4, "the scale is a power of two, and does not jump about"
    assert all(0 <= y <= HEIGHT for _, y in sent + points(drawn.received))
    assert sent[1][1] < sent[2][1] < sent[0][1], "more is higher"
    assert (drawn.sent_now, drawn.received_now) == (LEAST_SCALE, 0)


def test_a_full_history_fills_the_width() -> None:
    drawn = chart(rates(*[(1, 2)] * 180))
    assert points(drawn.sent)[0][0] == 0
