"""What is accepted, and what is sent for it."""

import pytest
from starlette.requests import Request

from relay.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from relay.router.dicomweb import media
from relay.router.dicomweb.media import MediaRange

JPEG = "1.2.840.10008.1.2.4.50"
J2K = "1.2.840.10008.1.2.4.90"
RLE = "1.2.840.10008.1.2.5"
MPEG4 = "1.2.840.10008.1.2.4.102"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [media.EVERYTHING]),
        ("*/*", [media.EVERYTHING]),
        ("application/dicom+json", [MediaRange("application/dicom+json")]),
        (
            'multipart/related; type="application/dicom"; transfer-syntax=*',
            [MediaRange("application/dicom", True, "*")],
        ),
        (
            "multipart/related;type=application/octet-stream;transfer-syntax=1.2.3, */*;q=0.1",
            [
                MediaRange("application/octet-stream", True, "1.2.3"),
                MediaRange("*/*", False, "*", 0.1),
            ],
        ),
        (
            'image/jpeg;q=0.5, Multipart/Related; Type="IMAGE/JLS", image/png;q=0',
            [MediaRange("image/jls", True), MediaRange("image/jpeg", quality=0.5)],
        ),
        ('a/b; note="x, y;z\\""; q=0.3', [MediaRange("a/b", quality=0.3)]),
        ("nonsense", []),
    ],
)
def test_an_accept_header(text: str, expected: list[MediaRange]) -> None:
    assert list(media.parse_accept(text)) == expected


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('multipart/related; type="application/dicom"; boundary=xyz', "multipart/related"),
        ("application/json", "application/json"),
        ("application/json; what", ""),
        ("", ""),
    ],
)
def test_a_content_type(text: str, kind: str) -> None:
    found, parameters = media.parse_type(text)
    assert found == kind
    if "boundary" in text:
        assert parameters == {"type": "application/dicom", "boundary": "xyz"}


def test_objects_go_in_the_default_transfer_syntax_unless_another_one_is_accepted() -> None:
    def accepted(text: str) -> media.ObjectsAccepted | None:
        return media.objects(media.parse_accept(text))

    default = accepted('multipart/related; type="application/dicom"')
    assert default == media.ObjectsAccepted((EXPLICIT_VR_LITTLE_ENDIAN,), False)
    one = accepted(f'multipart/related; type="application/dicom"; transfer-syntax={JPEG}')
    assert one == media.ObjectsAccepted((JPEG,), False)
    both = accepted(
        f'multipart/related; type="application/dicom"; transfer-syntax={JPEG},'
        ' multipart/related; type="application/dicom"'
    )
    assert both is not None
    assert set(both.syntaxes) == {JPEG, EXPLICIT_VR_LITTLE_ENDIAN}
    single = accepted("application/dicom")
    assert single is not None
    assert single.single
    anything = accepted("*/*")
    assert anything is not None
    assert anything.any
    assert not anything.single
    assert accepted("image/jpeg") is None
    big_endian = accepted(
        'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.2'
    )
    assert big_endian == media.ObjectsAccepted((), False)


@pytest.mark.parametrize(
    ("accept", "syntax", "expected"),
    [
        ("*/*", J2K, ("image/jp2", False)),
        ("*/*", EXPLICIT_VR_LITTLE_ENDIAN, ("application/octet-stream", False)),
        ("*/*", MPEG4, None),
        (
            "multipart/related; type=application/octet-stream",
            EXPLICIT_VR_LITTLE_ENDIAN,
            ("application/octet-stream", False),
        ),
        (
            "multipart/related; type=application/octet-stream",
            IMPLICIT_VR_LITTLE_ENDIAN,
            ("application/octet-stream", False),
        ),
        ("multipart/related; type=application/octet-stream", J2K, None),
        (
            "multipart/related; type=application/octet-stream; transfer-syntax=*",
            J2K,
            ("application/octet-stream", False),
        ),
        ('multipart/related; type="image/jpeg"', JPEG, ("image/jpeg", False)),
        ('multipart/related; type="image/jpeg"', J2K, None),
        (
            f'multipart/related; type="image/jpeg"; transfer-syntax={JPEG}',
            "1.2.840.10008.1.2.4.70",
            None,
        ),
        ("image/dicom-rle", RLE, ("image/dicom-rle", True)),
        ('multipart/related; type="image/*"', RLE, ("image/dicom-rle", False)),
    ],
)
def test_a_frame_goes_as_it_is_stored_or_not(
    accept: str, syntax: str, expected: tuple[str, bool] | None
) -> None:
    assert media.frame_type(media.parse_accept(accept), syntax) == expected


def test_json() -> None:
    assert media.takes_json(media.parse_accept("application/json")) == "application/json"
    assert media.takes_json(media.parse_accept("")) == "application/dicom+json"
    assert media.takes_json(media.parse_accept("multipart/related; type=application/dicom")) == ""
    assert media.takes_json(media.parse_accept("application/dicom+xml")) == ""


def test_bulk_data() -> None:
    def takes(text: str) -> tuple[str, bool] | None:
        return media.takes_octets(media.parse_accept(text))

    assert takes("*/*") == ("application/octet-stream", False)
    assert takes("application/octet-stream") == ("application/octet-stream", True)
    assert takes('multipart/related; type="image/jpeg"') is None


def test_headers_that_come_twice_are_one_list() -> None:
    headers = [(b"accept", b"image/jpeg"), (b"accept", b"application/dicom+json")]
    request = Request({"type": "http", "query_string": b"", "headers": headers})
    assert media.takes_json(media.accepted_by(request)) == media.JSON
    request = Request(
        {"type": "http", "query_string": b"accept=application/json", "headers": headers}
    )
    assert media.takes_json(media.accepted_by(request)) == media.PLAIN_JSON


@pytest.mark.parametrize("text", [", application/dicom+json", "nonsense, application/dicom+json"])
def test_what_is_no_type_hides_no_other(text: str) -> None:
    assert media.takes_json(media.parse_accept(text)) == media.JSON
