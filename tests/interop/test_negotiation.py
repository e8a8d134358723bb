"""What two devices agree on beside contexts: windows, roles, extended negotiation, user identity.

Each item of the user information is compared at both sockets; only the Maximum Length is each
hop's own (PS3.8 §D.1).
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relay.dicom import negotiation, uids
from relay.dicom.dimse import CommandField
from relay.dicom.negotiation import (
    AsynchronousOperationsWindow,
    RoleSelection,
    SOPClassCommonExtended,
    SOPClassExtended,
    UserIdentityRQ,
    UserIdentityType,
)
from relay.dicom.pdu import UserItem
from tests.association_pairs import serving
from tests.hospitals import ct_image
from tests.interop import peers
from tests.interop.both_sockets import Granted, Hospitals, Seen, assert_carried, hospitals
from tests.interop.caller import UNKNOWN_ITEM, answer_backwards, calling
from tests.interop.kept import kept
from tests.tap import messages, pdus

CT = "1.2.840.10008.5.1.4.1.1.2"
MAXIMUM_LENGTH, WINDOW, ROLE, EXTENDED, COMMON = 0x51, 0x53, 0x54, 0x56, 0x57
IDENTITY, IDENTITY_ANSWER = 0x58, 0x59

# Whether the device's own entry lets its user identity out, and whether the grant lets it in.
LETS_OUT = ("ID_BOTH", "ID_DEVICE")
LETS_IN = ("ID_BOTH", "ID_GRANT")
IDENTIFIED = ("ID_BOTH", "ID_DEVICE", "ID_GRANT", "ID_NONE")
PASSCODE = "OpenSesame"

SERVICES = ["echo", "store", "query"]

# A profile of DCMTK's: both roles, and an extended negotiation for Storage (PS3.4 §B.3.1).
DCMTK_PROFILE = """
[[TransferSyntaxes]]
[Plain]
TransferSyntax1 = LittleEndianExplicit
[[PresentationContexts]]
[Contexts]
PresentationContext1 = CTImageStorage\\Plain
[[SCPSCURoleSelection]]
[Roles]
Role1 = CTImageStorage\\BOTH
[[ExtendedNegotiation]]
[Extended]
ExtendedNegotiation1 = CTImageStorage\\020001010000
[[Profiles]]
[RELAY]
PresentationContexts = Contexts
SCPSCURoleSelection = Roles
ExtendedNegotiation = Extended
"""


@asynccontextmanager
async def devices(directory: Path) -> AsyncIterator[Hospitals]:
    users = ("--user", f"radiologist:{PASSCODE}", "--user", f"{PASSCODE}:")
    async with (
        peers.pynetdicom_services(directory / "services", *users) as services,
        peers.storescp(directory / "storescp") as storescp,
        serving(answer_backwards) as port,
    ):
        called: dict[str, tuple[peers.Target, list[str]]] = {
            "SERVICES": (services, SERVICES),
            "STORESCP": (storescp, SERVICES),
            "BACKWARDS": (peers.Address(port, "BACKWARDS"), SERVICES),
        }
        grants = [Granted(title, SERVICES, ["CALLER"]) for title in called]
        for title in ("SERVICES", "BACKWARDS"):
            grants.append(Granted(title, SERVICES, LETS_IN, user_identity=True))
            grants.append(Granted(title, SERVICES, ["ID_DEVICE", "ID_NONE"]))
        async with hospitals(
            directory, called, ["CALLER", *IDENTIFIED], grants, with_identity=LETS_OUT
        ) as at:
            yield at


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    with kept(lambda: devices(tmp_path_factory.mktemp("negotiation"))) as at:
        yield at


Item = tuple[int, int, bytes]


def user_items(stream: bytearray) -> list[Item]:
    """Type, reserved byte and value of each sub-item of the user information of the first PDU.

    PS3.8 §9.3.2.3; but for the Maximum Length.
    """
    _, body = next(pdus(bytes(stream)))
    information = [value for kind, _, value in items(body[68:]) if kind == 0x50]
    return [item for item in items(information[0]) if item[0] != MAXIMUM_LENGTH]


def items(encoded: bytes) -> Iterator[Item]:
    at = 0
    while at < len(encoded):
        length = int.from_bytes(encoded[at + 2 : at + 4], "big")
        yield encoded[at], encoded[at + 1], encoded[at + 4 : at + 4 + length]
        at += 4 + length


def assert_agreed(seen: Seen) -> tuple[list[Item], list[Item]]:
    """The items of each proposal and of each answer are the same at both sockets; the last ones."""
    assert len(seen.near) == len(seen.far) > 0
    for near, far in zip(seen.near, seen.far, strict=True):
        asked, agreed = user_items(near.requested), user_items(far.answered)
        assert user_items(far.requested) == asked
        assert user_items(near.answered) == agreed
    return asked, agreed


def kinds(found: list[Item]) -> set[int]:
    return {kind for kind, _, _ in found}


# --- roles, extended negotiation, what nobody knows ---------------------------------------------


async def test_everything_that_pynetdicom_negotiates(at: Hospitals) -> None:
    async with at.watch("SERVICES") as seen:
        (step,) = await peers.pynetdicom_scu("negotiation", seen.address, calling="CALLER")
        asked, agreed = assert_agreed(seen)
    assert kinds(asked) >= {WINDOW, ROLE, EXTENDED, COMMON}
    assert kinds(agreed) >= {WINDOW, ROLE, EXTENDED}
    assert step == {
        "step": "A-ASSOCIATE",
        "window": [1, 1],  # all that pynetdicom ever agrees to
        "extended": {uids.STUDY_ROOT_FIND: [1, 1, 0]},
        "roles": {CT: [True, True]},
    }


@pytest.mark.parametrize("provider", ["SERVICES", "STORESCP"])
async def test_what_dcmtk_negotiates(at: Hospitals, provider: str, tmp_path: Path) -> None:
    profile = tmp_path / "profile.cfg"
    profile.write_text(DCMTK_PROFILE)
    async with at.watch(provider) as seen:
        options = ["-xf", str(profile), "RELAY"]
        result = await peers.storescu(
            seen.address, ct_image().path, options=options, calling="CALLER"
        )
        result.check()
        assert_carried(seen)
        asked, agreed = assert_agreed(seen)
    assert kinds(asked) >= {ROLE, EXTENDED}
    assert (kinds(agreed) >= {ROLE, EXTENDED}) == (provider == "SERVICES")


@pytest.mark.parametrize("provider", ["STORESCP", "BACKWARDS"])
async def test_items_that_nobody_knows_pass(at: Hospitals, provider: str) -> None:
    """Both ways, their reserved byte included: who does not know them ignores them (PS3.8 §D.2).

    But for pynetdicom, which aborts, with Relay and without.
    """
    sent = [UserItem(0x6F, b"of the requestor", 5), UserItem(0x70, b"")]
    contexts = negotiation.propose([(CT, [ct_image().transfer_syntax])])
    async with at.watch(provider) as seen, calling(seen.address, "CALLER", contexts, *sent):
        pass
    asked, agreed = assert_agreed(seen)
    assert asked[-2:] == [(0x6F, 5, b"of the requestor"), (0x70, 0, b"")]
    unknown = (UNKNOWN_ITEM.type, UNKNOWN_ITEM.reserved, UNKNOWN_ITEM.value)
    assert (unknown in agreed) == (provider == "BACKWARDS")


@pytest.mark.parametrize(
    "role",
    [RoleSelection(CT, scu=scu, scp=scp) for scu in (True, False) for scp in (True, False)],
    ids=lambda role: f"scu={role.scu:d},scp={role.scp:d}",
)
async def test_each_selection_of_roles(at: Hospitals, role: RoleSelection) -> None:
    contexts = negotiation.propose([(CT, [ct_image().transfer_syntax])])
    more = (
        SOPClassExtended(CT, b"\x02\x00\x01\x01\x00\x00"),
        SOPClassCommonExtended(CT, "1.2.840.10008.4.2", ("1.2.840.10008.5.1.4.1.1.7",)),
    )
    async with (
        at.watch("BACKWARDS") as seen,
        calling(seen.address, "CALLER", contexts, role, *more) as caller,
    ):
        if role.scu:
            image = ct_image().data_set()
            assert await caller.status(1, CommandField.C_STORE_RQ, CT, image) == 0
    asked, agreed = assert_agreed(seen)
    item = (ROLE, 0, role.encode().value)
    assert item in asked
    assert item in agreed


@pytest.mark.parametrize("provider", ["SERVICES", "STORESCP"])
async def test_128_contexts(at: Hospitals, provider: str) -> None:
    """All odd IDs up to 255; the instance goes over the last one."""
    image = ct_image()
    others = [(f"1.2.840.10008.5.1.4.1.1.99999.{n}", [image.transfer_syntax]) for n in range(127)]
    contexts = negotiation.propose([*others, (CT, [image.transfer_syntax])])
    async with (
        at.watch(provider) as seen,
        calling(seen.address, "CALLER", contexts) as caller,
    ):
        assert sorted(caller.results) == list(range(1, 256, 2))
        status = await caller.status(255, CommandField.C_STORE_RQ, CT, image.data_set())
        assert status == 0
        assert_carried(seen)
        assert [message.context_id for message in seen.asked()] == [255]
    near, far = (next(pdus(bytes(s)))[1] for s in (seen.near[0].answered, seen.far[0].answered))
    results = [[item for item in items(body[68:]) if item[0] == 0x21] for body in (near, far)]
    assert results[0] == results[1]


# --- operations outstanding at once -------------------------------------------------------------


@pytest.mark.parametrize("provider", ["SERVICES", "STORESCP", "BACKWARDS"])
async def test_many_operations_are_outstanding(at: Hospitals, provider: str) -> None:
    """Sixteen C-STORE and C-ECHO before the first answer, which come in the provider's order."""
    window = AsynchronousOperationsWindow(16, 1)
    image = ct_image()
    contexts = negotiation.propose(
        [(CT, [image.transfer_syntax]), (uids.VERIFICATION, [uids.IMPLICIT_VR_LITTLE_ENDIAN])]
    )
    async with (
        at.watch(provider) as seen,
        calling(seen.address, "CALLER", contexts, window) as caller,
    ):
        for number in range(16):
            if number % 2:
                await caller.ask(3, CommandField.C_ECHO_RQ, uids.VERIFICATION)
            else:
                await caller.ask(1, CommandField.C_STORE_RQ, CT, image.data_set())
        answered = []
        for _ in range(16):
            heard = await caller.hear()
            assert isinstance(heard, tuple), heard
            assert heard[1].status == 0
            answered.append(heard[1].message_id_responded_to)
    in_order = list(range(1, 17))
    assert answered == (in_order[::-1] if provider == "BACKWARDS" else in_order)
    assert_carried(seen)
    _, agreed = assert_agreed(seen)
    assert (WINDOW in kinds(agreed)) == (provider != "STORESCP")


# --- user identity ------------------------------------------------------------------------------


@pytest.mark.parametrize("caller", IDENTIFIED)
async def test_a_user_identity_needs_the_device_and_the_grant(at: Hospitals, caller: str) -> None:
    """By DCMTK to pynetdicom: name and passcode; without either the far device sees nothing."""
    options = ["-usr", "radiologist", "-pwd", PASSCODE]
    async with at.watch("SERVICES") as seen:
        result = await peers.storescu(
            seen.address, ct_image().path, options=options, calling=caller
        )
        result.check()
        assert_carried(seen)
    (far,) = seen.far
    assert IDENTITY in kinds(user_items(seen.near[0].requested))
    if caller == "ID_BOTH":
        assert_agreed(seen)
    else:
        assert IDENTITY not in kinds(user_items(far.requested))
        assert PASSCODE.encode() not in far.requested
    for site in at.net.routers.values():
        assert PASSCODE not in site.output()


async def test_a_wrong_passcode_is_the_devices_to_reject(at: Hospitals) -> None:
    async with at.watch("SERVICES") as seen:
        with pytest.raises(peers.PeerError, match="no association"):
            await peers.pynetdicom_scu(
                "negotiation", seen.address, "--user", "radiologist:guess", calling="ID_BOTH"
            )
    assert seen.near[0].answered == seen.far[0].answered
    assert [kind for kind, _ in pdus(bytes(seen.near[0].answered))] == [3]  # A-ASSOCIATE-RJ


async def test_a_token_is_answered(at: Hospitals, tmp_path: Path) -> None:
    """A positive response, which DCMTK insists on: pynetdicom gives one to tokens only."""
    token = tmp_path / "token"
    token.write_text(PASSCODE)
    async with at.watch("SERVICES") as seen:
        options = ["--jwt", str(token), "--pos-response"]
        result = await peers.storescu(
            seen.address, ct_image().path, options=options, calling="ID_BOTH"
        )
        result.check()
        _, agreed = assert_agreed(seen)
    assert IDENTITY_ANSWER in kinds(agreed)


@pytest.mark.parametrize("caller", IDENTIFIED)
async def test_a_name_and_passcode_are_answered(at: Hospitals, caller: str) -> None:
    identity = UserIdentityRQ(
        UserIdentityType.USERNAME_AND_PASSCODE, True, b"radiologist", PASSCODE.encode()
    )
    contexts = negotiation.propose([(CT, [ct_image().transfer_syntax])])
    async with at.watch("BACKWARDS") as seen, calling(seen.address, caller, contexts, identity):
        pass
    answered = IDENTITY_ANSWER in kinds(user_items(seen.near[0].answered))
    assert answered == (caller == "ID_BOTH")
    if answered:
        assert_agreed(seen)
    assert not list(messages(bytes(seen.far[0].requested)))
