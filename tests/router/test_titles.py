"""Two of one name: what is refused, and what people are told to do."""

from pathlib import Path

import pytest

from relay.errors import Refused
from relay.router.aliases import Alias
from relay.router.devices import Device, DeviceTable
from relay.router.node import Node
from relay.router.titles import Titles
from tests.router.fakes import hospital, listing, publication

PACS = Device("PACS", "192.0.2.1", published="PACS_B", services=frozenset({"store"}))
WS = Device("WS", "192.0.2.2", present_as="CALLER")


async def with_titles(me: Node, north: Node) -> None:
    """A Router with a device of each kind and an alias, and a network that publishes two titles."""
    published = [publication(north, title, "store") for title in ("PACS", "CT1")]
    await me.joined().directory.take(listing(north, publications=published))
    await me.put_device(PACS)
    await me.put_device(WS)
    await me.put_alias(Alias("PACS_A", "PACS"))


@pytest.mark.parametrize(
    ("alias", "words"),
    [
        (Alias("RELAY", "CT1"), "'RELAY' is this Router's own AE title: choose another local"),
        (Alias("PACS", "CT1"), "'PACS' is the device PACS: choose another local"),
        (Alias("PACS_B", "CT1"), "'PACS_B' is the device PACS: choose another local"),
        (Alias("CALLER", "CT1"), "'CALLER' is what WS is called by .*: choose another local"),
        (Alias("CT1", "CT2"), "'CT1' is published by another hospital, which could not be called"),
        (Alias("OURS", "PACS_B"), "'PACS_B' is also the published title of the device PACS here"),
        (
            Alias("WS_A", "WS"),
            "another hospital's is meant, .* `relay device add WS .* --as WS_HR`",
        ),
        (Alias("PACS_A", "CT1"), "'PACS_A' is here for 'PACS' already: `relay alias remove"),
        (Alias("NORTH", "PACS"), "'PACS_A' is here for 'PACS' already: `relay alias remove"),
    ],
)
async def test_an_alias_that_would_make_two_of_one_name(
    tmp_path: Path, alias: Alias, words: str
) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        await with_titles(me, north)
        with pytest.raises(Refused, match=words) as caught:
            await me.put_alias(alias)
        assert caught.value.status == 409
        assert list(me.aliases) == [Alias("PACS_A", "PACS")]


async def test_aliases_that_hold(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        await with_titles(me, north)
        assert not await me.put_alias(Alias("PACS_A", "PACS"))
        assert await me.put_alias(Alias("CT1", "CT1"))  # by the name that it has
        assert await me.put_alias(Alias("LATER", "NOT PUBLISHED YET"))
        assert await me.remove_alias("PACS_A") == Alias("PACS_A", "PACS")
        assert await me.put_alias(Alias("NORTH", "PACS"))


def device(ae_title: str, published: str = "", present_as: str = "") -> Device:
    return Device(ae_title, "192.0.2.3", published=published or ae_title, present_as=present_as)


@pytest.mark.parametrize(
    ("entered", "words"),
    [
        (device("RELAY"), "'RELAY' is this Router's own AE title"),
        (device("PACS_A"), "'PACS_A' is here for 'PACS': `relay alias remove PACS_A` first"),
        (device("PACS_B"), "'PACS_B' is what the network knows PACS as: .* add PACS … --as …"),
        (device("CALLER"), "'CALLER' is what WS is called by: .* add WS … --present-as …"),
        (device("CT", "RELAY"), "'RELAY' is this Router's own AE title: .* `--as CT_HR`"),
        (
            device("CT", "PACS"),
            "'PACS' is another hospital's, known here as 'PACS_A': .*--as CT_HR",
        ),
        (device("CT", "PACS_A"), "'PACS_A' is the local title of an alias: .* `--as CT_HR`"),
        (device("CT", "PACS_B"), "'PACS_B' is the device PACS: give CT another with `--as CT_HR`"),
        (device("CT", "WS"), "'WS' is the device WS: give CT another with `--as CT_HR`"),
        (device("CT", "CALLER"), "'CALLER' is what WS is called by: give CT another"),
        (device("CT", present_as="CT"), "'CT' is the device itself: present callers as"),
        (device("CT", "CT_B", "CT_B"), "'CT_B' is the device itself: present callers as"),
        (device("CT", present_as="PACS"), "'PACS' is the device PACS: present callers as"),
        (device("CT", present_as="PACS_B"), "'PACS_B' is the device PACS: present callers as"),
        (device("CT", present_as="PACS_A"), "'PACS_A' is the local title of an alias: present"),
        (device("CT", present_as="CT1"), "'CT1' is published by another hospital: present"),
    ],
)
async def test_a_device_that_would_make_two_of_one_name(
    tmp_path: Path, entered: Device, words: str
) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        await with_titles(me, north)
        with pytest.raises(Refused, match=words) as caught:
            await me.put_device(entered)
        assert caught.value.status == 409
        assert list(me.devices) == [PACS, WS]


@pytest.mark.parametrize(
    "entered",
    [
        device("CT1"),  # the network's CT1 is another: the Bridge says so when it is published
        device("CT", present_as="RELAY"),  # a PACS that has one entry, for its Router
        device("CT", present_as="CALLER"),  # two devices that know callers by the same
        device("WS", "WS_B", "CALLER"),  # changed
    ],
)
async def test_devices_that_hold(tmp_path: Path, entered: Device) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        await with_titles(me, north)
        assert await me.put_device(entered)
        assert me.devices.get(entered.ae_title) == entered


async def test_two_devices_of_one_published_title_are_refused_in_words(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me:
        table = await DeviceTable.load(me.database)
        await table.put(PACS)
        with pytest.raises(Refused, match="knows PACS as 'PACS_B' already: give CT another"):
            await table.put(Device("CT", "192.0.2.9", published="PACS_B"))
        assert list(await DeviceTable.load(me.database)) == [PACS]


async def test_unenrolled_there_is_no_directory_to_look_in(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me", enrolled=False) as me:
        await me.put_device(PACS)
        assert await me.put_alias(Alias("PACS_A", "PACS"))


async def test_a_free_title_is_suggested(tmp_path: Path) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        await with_titles(me, north)

        def suggested(ae_title: str, hospital: str = "") -> str:
            network = me.joined().directory
            titles = Titles(me.ae_title, tuple(me.devices), me.aliases, network, hospital)
            return titles.suggested(ae_title)

        assert suggested("PACS", "South") == "PACS_SOUTH"
        assert suggested("PACS", "Hospital de São João") == "PACS_HDSJ"
        assert suggested("PACS", "Évora") == "PACS_EVORA"
        assert suggested("PACS", "A") == "PACS_C"  # PACS_A and PACS_B are taken
        assert suggested("PACS") == "PACS_C"
        assert suggested("CT1", "市立病院") == "CT1_B"
        assert suggested("A_LONG_AE_TITLE.", "Universitätsklinikum") == "A_LONG__UNIVERSI"


@pytest.mark.parametrize(
    "entered",
    [device("ALL"), device("CT", "ALL"), device("CT", present_as="ALL")],
)
async def test_the_federations_title_is_nobody_elses(tmp_path: Path, entered: Device) -> None:
    async with hospital(tmp_path / "me") as me:
        me.name_federation("ALL")
        with pytest.raises(Refused, match="'ALL' is what this hospital's federation is called by"):
            await me.put_device(entered)
        for alias in (Alias("ALL", "PACS"), Alias("PACS_A", "ALL")):
            with pytest.raises(Refused, match="'ALL' is what this hospital's federation is called"):
                await me.put_alias(alias)


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("RELAY", "'RELAY' is this Router's own AE title: give the federation another"),
        ("PACS", "'PACS' is the device PACS: give the federation another"),
        ("PACS_B", "'PACS_B' is the device PACS"),
        ("CALLER", "'CALLER' is the device WS"),
        ("PACS_A", "'PACS_A' is in an alias"),
    ],
)
async def test_a_title_that_somebody_has_is_not_the_federations(
    tmp_path: Path, title: str, words: str
) -> None:
    async with hospital(tmp_path / "me") as me, hospital(tmp_path / "north") as north:
        await with_titles(me, north)
        with pytest.raises(Refused, match=words):
            me.name_federation(title)
        assert me.federation_title == ""
        me.name_federation("")
        me.name_federation("ALL")
        assert me.federation_title == "ALL"
