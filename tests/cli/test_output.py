import pytest

from relay.cli import output
from relay.providers import Finding


def test_a_table_shows_every_kind_of_cell_on_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(
        ("name", "on"),
        [("[bold]A\n\x1b[2J", True), (None, ["echo", "store"]), ("x" * 200, [])],
        empty="none",
    )
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["name", "on"],
        [r"[bold]A\n\x1b[2J", "yes"],
        ["-", "echo,", "store"],
        ["x" * 200, "-"],
    ]


def test_no_rows_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("name",), [], empty="none yet")
    assert capsys.readouterr().out == "none yet\n"


def test_findings_say_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert output.print_findings([Finding("disk", True)])
    assert not output.print_findings([Finding("disk", True), Finding("clock", False, "use NTP")])
    assert capsys.readouterr().out.splitlines()[-2:] == ["FAIL clock", "     use NTP"]


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (3 * 2**30, "3.0 GiB"),
        (2**42, "4096.0 GiB"),
    ],
)
def test_sizes(count: int, words: str) -> None:
    assert output.size(count) == words


def test_a_segment_cannot_leave_its_place() -> None:
    assert output.quoted("../A?B #/") == "..%2FA%3FB%20%23%2F"


def test_a_time_names_its_zone() -> None:
    assert output.local_time(0).startswith(("1970-01-01", "1969-12-31"))


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 objects"), (1, "1 object"), (1000, "1000 objects")]
)
def test_objects(count: int, words: str) -> None:
    assert output.objects(count) == words
