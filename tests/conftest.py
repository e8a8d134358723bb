"""What every test stands on: full sizes on request, reproducible Hypothesis, captured logs.

`--all` (or RELAY_TEST_FULL=1) runs the checks at their stated sizes: tests marked `full` are
collected, and those that take the `full_size` fixture grow. With CI=true a skip is a failure: what
was not run was not shown.
"""

import gc
import os
from collections.abc import Callable, Generator, Iterator, MutableMapping
from typing import Any

import hypothesis
import pytest
import structlog

IN_CI = os.environ.get("CI") == "true"

# The machine decides how long an example takes, so no deadline; in CI the same examples each time,
# so that a red run can be run again.
hypothesis.settings.register_profile("relay", deadline=None, derandomize=IN_CI, print_blob=True)
hypothesis.settings.load_profile("relay")


# The files that take longest, a quarter of a minute and more each: they begin first, since whoever
# begins one last is waited for alone.
LONGEST = (
    "tests/browser/test_pages.py",
    "tests/cli/demo/test_command.py",
    "tests/browser/test_first_start.py",
    "tests/providers/test_s3_transfer.py",
    "tests/browser/test_names.py",
    "tests/browser/test_by_keyboard.py",
    "tests/interop/test_moves.py",
    "tests/interop/test_queue.py",
    "tests/interop/test_tls.py",
    "tests/faults/test_queue_links.py",
    "tests/hospital_networks/test_mistakes.py",
    "tests/interop/test_two_hospitals.py",
    "tests/interop/test_queue_commitment.py",
    "tests/interop/test_backup.py",
    "tests/interop/test_queue_moves.py",
    "tests/faults/test_endurance.py",
    "tests/hospital_networks/test_networks.py",
    "tests/tunnel/test_session.py",
    "tests/tunnel/test_endurance.py",
    "tests/faults/test_queue_kills.py",
    "tests/faults/test_queue_full.py",
    "tests/interop/test_endings.py",
    "tests/faults/test_sessions.py",
    "tests/interop/test_association_peers.py",
    "tests/interop/test_names.py",
    "tests/interop/test_federation_failing.py",
    "tests/interop/test_federation.py",
    "tests/interop/test_federation_studies.py",
    "tests/interop/test_federation_web.py",
    "tests/interop/test_federation_memory.py",
    "tests/interop/test_commitment.py",
    "tests/providers/test_disk.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run every check at its stated full size")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--all"):
        os.environ["RELAY_TEST_FULL"] = "1"  # real processes that tests start see it too


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=_turn)
    if os.environ.get("RELAY_TEST_FULL") == "1":
        return
    left_out = [item for item in items if item.get_closest_marker("full") is not None]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item.get_closest_marker("full") is None]


def pytest_collection_finish() -> None:
    # What is collected stays to the end: no collection of garbage need look through it again.
    gc.collect()
    gc.freeze()


def _turn(item: pytest.Item) -> int:
    file = item.nodeid.partition("::")[0]
    return LONGEST.index(file) if file in LONGEST else len(LONGEST)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"a skip fails in CI: {reason}"
    return report


@pytest.fixture
def full_size() -> bool:
    """Whether to run at the stated size instead of the smallest honest one."""
    return os.environ.get("RELAY_TEST_FULL") == "1"


@pytest.fixture
def logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """The log lines of this test as dictionaries: `event`, `log_level` and the line's own keys."""
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Tell a figure that was measured on the way; all are shown at the end of the run."""
    return lambda words: request.node.user_properties.append(("figure", words))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    lines = [
        f"{report.nodeid.rpartition('::')[2]}: {words}"
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, words in report.user_properties
        if name == "figure"
    ]
    if lines:
        terminalreporter.section("figures")
        for line in lines:
            terminalreporter.line(line)
