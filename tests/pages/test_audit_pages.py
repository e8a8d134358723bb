"""The audit on a page: filtered, paged, checked; and no patient for a viewer."""

import html
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay.audit import happenings
from relay.audit.audit import Audit, open_audit
from relay.audit.codes import EventType, IDType, Kind, Outcome, RoleID
from relay.audit.document import AuditSource
from relay.audit.events import AuditEvent, Instances, Participant, Subject
from relay.audit.operations import audit_operations
from relay.pages import audit_pages
from relay.pages.audit_pages import KINDS
from relay.people.roles import Role
from tests.router.pages.site import NASTY, Browser, browser, text, value_of

# 2026-11-28, noon.
NOON = 1795867200.0


@asynccontextmanager
async def audited(tmp_path: Path) -> AsyncIterator[tuple[Browser, Audit]]:
    async with (
        open_audit(tmp_path, lambda: AuditSource("RELAY", "North")) as audit,
        browser(tmp_path, more=audit_operations(audit)) as visitor,
    ):
        yield visitor, audit


async def fill(audit: Audit) -> None:
    """A transfer of a study, and a sign-in with a nasty name a day later."""
    audit.record(
        AuditEvent(
            kind=Kind.TRANSFER,
            at=NOON,
            participants=(
                Participant("CT<1>", RoleID.SOURCE, requestor=True, ae_title=True),
                Participant("PACS", RoleID.DESTINATION, ae_title=True),
            ),
            subjects=(Subject(IDType.STUDY, "1.2.840.77", (Instances("1.2", 3, ("1.9",)),)),),
        )
    )
    audit.record(
        AuditEvent(
            kind=Kind.SIGN_IN,
            at=NOON + 86400,
            participants=(Participant(NASTY, requestor=True, person=True),),
            why=NASTY,
        )
    )
    await audit.flush()


async def test_entries_stand_the_newest_first_and_nasty_ones_as_text(tmp_path: Path) -> None:
    async with audited(tmp_path) as (visitor, audit):
        assert "No entry yet." in text(await visitor.get("/audit"))
        await fill(audit)
        page = await visitor.get("/audit")
        assert "<b>" not in page
        assert "CT<1>" in text(page)
        assert "O'Hara" in text(page)
        assert page.index("2026-11-29") < page.index("2026-11-28")
        assert 'href="/transfers/items?study=1.2.840.77"' in page


async def test_a_viewer_sees_no_study_and_gets_no_message(tmp_path: Path) -> None:
    async with audited(tmp_path) as (administrator, audit):
        await fill(audit)
        viewer = await administrator.sign_in(Role.VIEWER)
        page = await viewer.get("/audit")
        assert "CT&lt;1&gt;" in page
        assert "1.2.840.77" not in page
        assert "/audit/message" not in page
        assert "audit.csv" not in page
        await viewer.get("/audit/message?number=1", 403)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("kind=transfer", ["2026-11-28"]),
        ("kind=sign-in", ["2026-11-29"]),
        ("ae_title=PACS", ["2026-11-28"]),
        ("ae_title=NOBODY", []),
        ("since=2026-11-28T13:00", ["2026-11-29"]),
        ("until=2026-11-28T13:00", ["2026-11-28"]),
        ("kind=&since=&until=&who=&ae_title=", ["2026-11-29", "2026-11-28"]),
    ],
)
async def test_filters(tmp_path: Path, query: str, found: list[str]) -> None:
    async with audited(tmp_path) as (visitor, audit):
        await fill(audit)
        page = await visitor.get(f"/audit?{query}")
    shown = [day for day in ("2026-11-29", "2026-11-28") if f'<time datetime="{day}' in page]
    assert shown == found
    assert ("No entry matches" in text(page)) == (not found)


async def test_a_time_that_is_none_is_refused_and_stays_typed(tmp_path: Path) -> None:
    async with audited(tmp_path) as (visitor, _):
        page = await visitor.get("/audit?since=yesterday", 400)
        assert "is no time" in text(page)
        assert value_of(page, "since") == "yesterday"
        page = await visitor.get("/audit?kind=nothing", 400)
        assert "is none of" in text(page)


async def test_pages_lead_to_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_pages, "PAGE", 1)
    async with audited(tmp_path) as (visitor, audit):
        await fill(audit)
        first = await visitor.get("/audit?who=")
        assert 'href="/audit?before=' in first
        assert "Newer" not in first
        assert "Newer" in await visitor.get("/audit?before=2")


async def test_one_entry_as_a_dicom_audit_message(tmp_path: Path) -> None:
    async with audited(tmp_path) as (visitor, audit):
        await fill(audit)
        page = await visitor.get("/audit/message?number=1")
        assert "<AuditMessage" not in page
        assert "AuditMessage" in text(page)
        await visitor.get("/audit/message?number=99", 404)
        await visitor.get("/audit/message?number=x", 404)


async def test_an_entry_says_in_words_what_was_done_and_by_which_request(tmp_path: Path) -> None:
    async with audited(tmp_path) as (visitor, audit):
        person = Participant("anna", address="10.0.0.7", person=True)
        audit.record(
            happenings.alert(
                EventType.NETWORK_CONFIGURATION,
                Participant("RELAY", ae_title=True),
                "Added the device CT1",
                subject="/v1/devices",
                subject_type=IDType.URI,
                performers=[person],
                details=[(happenings.REQUEST, "POST /v1/devices ae_title=CT1")],
                outcome=Outcome.SUCCESS,
            )
        )
        await audit.flush()
        listed = text(await visitor.get("/audit"))
        assert "Added the device CT1 Changes and alerts anna 10.0.0.7 – Success" in listed
        assert "POST" not in listed
        page = await visitor.get("/audit/message?number=1")
        assert "Request POST /v1/devices ae_title=CT1" in text(page)
        assert "By anna from 10.0.0.7" in text(page)
        lines = html.unescape(page).splitlines()
        assert "  <EventIdentification" in "\n".join(lines), "an element a line, indented"
        assert all(line.count("<ActiveParticipant") <= 1 for line in lines)


async def test_a_refused_call_shows_who_called_whom_and_what_to_do(tmp_path: Path) -> None:
    async with audited(tmp_path) as (visitor, audit):
        caller = Participant("CT_2", address="10.0.0.9", ae_title=True)
        hospital = Participant("abcd-efgh-ijkl-mnop-qrst-uvwx-yz23-4567", name="South")
        for words, performer in (("CT_2 may not call PACS", caller), ("a call", hospital)):
            audit.record(
                happenings.alert(
                    EventType.NODE_AUTHENTICATION,
                    Participant("RELAY", ae_title=True),
                    words,
                    subject="PACS",
                    performers=[performer],
                    why="ask with `relay grant ask PACS`",
                )
            )
        await audit.flush()
        page = await visitor.get("/audit")
        assert "CT_2 10.0.0.9 CT_2 → PACS Failure ask with relay grant ask PACS" in text(page)
        assert "<code>relay grant ask PACS</code>" in page
        assert "South South → PACS Failure" in text(page)
        page = text(await visitor.get("/audit/message?number=1"))
        assert "From and to CT_2 → PACS" in page


async def test_the_chain_is_checked(tmp_path: Path) -> None:
    async with audited(tmp_path) as (visitor, audit):
        await fill(audit)
        assert "The chain is whole." in text(await visitor.get("/audit/verify"))


def test_all_kinds_can_be_chosen() -> None:
    assert {kind for kind, _ in KINDS if kind} == {kind.word for kind in Kind}
