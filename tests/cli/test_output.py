import pytest
from rich.console import Console

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


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 40 columns."""
    monkeypatch.setattr(output, "console", lambda: Console(width=40, highlight=False))


@pytest.mark.usefixtures("narrow")
def test_where_there_is_little_room_cells_are_wrapped_between_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = "the device does not answer: is it switched on?"
    output.print_table(("name", "why", "n"), [("PACS_SOUTH", words, 1)], empty="")
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "name        why                        n",
        "PACS_SOUTH  the device does not        1",
        "            answer: is it switched",
        "            on?",
    ]


@pytest.mark.usefixtures("narrow")
def test_where_words_have_no_room_beside_each_other_rows_stand_below_another(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fingerprint = "abcd-efgh-ijkl-mnop-qrst"
    rows = [("North Hospital", fingerprint, True), ("West", "b" * 50, False)]
    output.print_table(("name", "fingerprint", "up"), rows, empty="")
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "name         North Hospital",
        f"fingerprint  {fingerprint}",
        "up           yes",
        "",
        "name         West",
        f"fingerprint  {'b' * 50}",
        "up           no",
    ]


@pytest.mark.usefixtures("narrow")
def test_findings_and_facts_hang_below_their_beginning(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_findings([Finding("clock " + "x " * 20, False, "set up NTP on the machine there")])
    contact = "relay-contact:" + "c" * 60
    output.print_facts([("name", "[b]North\n"), ("contact", contact), ("none", "")])
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "FAIL clock x x x x x x x x x x x x x x x",
        "     x x x x x",
        "     set up NTP on the machine there",
        "name     [b]North\\n",
        f"contact  {contact}",
        "none",
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
