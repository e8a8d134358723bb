"""Settings: who this Router is, and each key of relay.toml with what it is for."""

from pathlib import Path

from relay.cli.configured import rows
from relay.config import Mode
from relay.config_file import load
from relay.router.pages.settings import OTHERS, _grouped
from relay.router.queue.warnings import Kind
from tests.router.pages.site import browser, text

FILE = """
[router]
ae_title = "NORTH"
spool_space = "10 GiB"
proxy = "file:proxy"
webhook = "https://alerts.example/relay"
"""


async def test_the_page_shows_each_key_its_value_and_no_secret(tmp_path: Path) -> None:
    (tmp_path / "proxy").write_text("http://user:hunter2@proxy.example:3128\n")
    file = tmp_path / "relay.toml"
    file.write_text(FILE)
    config = load(file, Mode.ROUTER)
    async with browser(tmp_path) as visitor:
        visitor.node.configuration = rows(config)
        page = await visitor.get("/settings")
        shown = text(page)
    for row in visitor.node.configuration:
        assert f"<code>{row['key']}</code>" in page, row["key"]
    assert "10 GiB without the key: 50 GiB" in shown
    assert "hunter2" not in page
    assert "file:" in shown
    assert "start the Router again" in shown


def test_no_key_is_left_out_and_few_stand_with_the_others(tmp_path: Path) -> None:
    file = tmp_path / "relay.toml"
    file.write_text("[router]\n")
    keys = rows(load(file, Mode.ROUTER))
    groups = dict(_grouped(keys))
    assert sum(map(len, groups.values())) == len(keys)
    assert {key["key"] for key in groups[OTHERS]} <= {
        "data_dir",
        "grace_period",
        "log_level",
        "log_format",
    }


async def test_ones_own_contact_and_what_is_to_be_seen_to(tmp_path: Path) -> None:
    async with browser(tmp_path) as visitor:
        page = await visitor.get("/settings")
        assert visitor.node.contact.to_string() in page
        groups = visitor.node.identity.fingerprint.split("-")
        assert " ".join(groups) in text(page), "to be read out"
        assert "Nothing to see to." in text(page)
        visitor.queue.warnings.begin(Kind.SPOOL_FULL, "", "no more room")
        assert "no more room" in text(await visitor.get("/settings"))
        visitor.node.joined().client.clock_offset = 95.0
        assert "set it by NTP" in text(await visitor.get("/settings"))
