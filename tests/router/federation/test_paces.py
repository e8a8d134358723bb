import pytest
import trio
import trio.testing

from relay.router.federation.paces import PACE_LIFE, WEIGHT, Paces
from tests.router.federation.catalogues import asks

STUDIES = asks(StudyDate="20261129", PatientID="").kind
SERIES = asks("SERIES", StudyInstanceUID="1.2").kind


async def test_what_it_took_last_counts_most_and_all_before_a_little() -> None:
    paces = Paces()
    assert paces.of("A", STUDIES) is None
    paces.note("A", STUDIES, 2.0)
    assert paces.of("A", STUDIES) == 2.0
    paces.note("A", STUDIES, 1.0)
    assert paces.of("A", STUDIES) == pytest.approx(2.0 - WEIGHT)
    for _ in range(20):
        paces.note("A", STUDIES, 1.0)
    assert paces.of("A", STUDIES) == pytest.approx(1.0, abs=0.001)


async def test_each_device_has_its_own_for_each_kind_of_query() -> None:
    paces = Paces()
    paces.note("A", STUDIES, 2.0)
    paces.note("A", SERIES, 0.1)
    paces.note("B", STUDIES, 3.0)
    assert paces.of("A", STUDIES) == 2.0
    assert paces.of("A", SERIES) == 0.1
    assert paces.of("B", STUDIES) == 3.0
    assert paces.of("B", SERIES) is None


async def test_it_expires_and_is_not_in_the_mean_then(
    autojump_clock: trio.testing.MockClock,
) -> None:
    paces = Paces()
    paces.note("A", STUDIES, 2.0)
    await trio.sleep(PACE_LIFE - 1)
    assert paces.of("A", STUDIES) == 2.0
    await trio.sleep(2)
    assert paces.of("A", STUDIES) is None
    paces.note("A", STUDIES, 1.0)
    assert paces.of("A", STUDIES) == 1.0


async def test_it_is_bounded_and_the_oldest_go() -> None:
    paces = Paces(3)
    for title in ("1", "2", "3"):
        paces.note(title, STUDIES, 1.0)
    paces.note("1", STUDIES, 1.0)  # now the newest
    paces.note("4", STUDIES, 1.0)
    assert len(paces) == 3
    assert paces.of("2", STUDIES) is None
    assert paces.of("1", STUDIES) == 1.0
