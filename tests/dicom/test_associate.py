"""A-ASSOCIATE-RQ and -AC: what is taken, what is refused, and in which words."""

import attrs
import pytest

from relay.dicom import associate
from relay.dicom.associate import MAXIMUM_USER_INFORMATION, decode_ac, decode_rq, encode_body
from relay.dicom.pdu import (
    AAssociateAC,
    AAssociateRQ,
    PresentationContext,
    PresentationContextResult,
    UserItem,
)
from relay.errors import AbortReason, LocalProtocolError, RemoteProtocolError
from tests.dicom.samples import (
    AC,
    APPLICATION_CONTEXT_ITEM,
    CT,
    EXPLICIT,
    IMPLICIT,
    RQ,
    VERIFICATION,
    text,
)


def item(item_type: int, *values: bytes | str, reserved: int = 0) -> bytes:
    value = b"".join(v.encode("latin-1") if isinstance(v, str) else v for v in values)
    return bytes((item_type, reserved)) + len(value).to_bytes(2, "big") + value


def fixed(called: bytes = b"PACS", calling: bytes = b"CT1", version: int = 1) -> bytes:
    titles = called.ljust(16) + calling.ljust(16)
    return version.to_bytes(2, "big") + bytes(2) + titles + bytes(32)


APPLICATION = bytes.fromhex(APPLICATION_CONTEXT_ITEM)
CONTEXT = item(
    0x20, bytes((1, 0, 0, 0)), item(0x30, VERIFICATION), item(0x40, IMPLICIT)
)  # fmt: skip


def rq(*items: bytes, called: bytes = b"PACS", calling: bytes = b"CT1") -> AAssociateRQ:
    return decode_rq(memoryview(fixed(called, calling) + APPLICATION + b"".join(items)))


def ac(*items: bytes, called: bytes = b"PACS", calling: bytes = b"CT1") -> AAssociateAC:
    return decode_ac(memoryview(fixed(called, calling) + APPLICATION + b"".join(items)))


def context(context_id: int, *items: bytes) -> bytes:
    return item(0x20, bytes((context_id, 0, 0, 0)), *items)


def result(context_id: int, value: int, *items: bytes) -> bytes:
    return item(0x21, bytes((context_id, 0xFF, value, 0xFF)), *items)


class TestAETitles:
    def test_trimmed_at_both_ends(self) -> None:
        """FIELD 4: AE titles are trimmed; inner spaces stay."""
        request = rq(called=b"  PACS 1 ", calling=b"CT1")
        assert (request.called, request.calling) == ("PACS 1", "CT1")

    @pytest.mark.parametrize(
        "title", [b"%s%n", b"../secret/X", b"'; DROP TABLE", b"; rm -rf", b"<script>", b"$(x)"]
    )
    def test_legal_characters_are_data(self, title: bytes) -> None:
        """FIELD 5a: what is dangerous elsewhere is legal in the AE VR, and carried."""
        assert rq(called=title).called == title.decode()

    @pytest.mark.parametrize("title", [b"A\0B", b"PACS\0\0\0", b"A\nB", b"A\\B", b"\xc4", b"\x7f"])
    @pytest.mark.parametrize("field", ["called", "calling"])
    def test_illegal_characters_are_refused(self, field: str, title: bytes) -> None:
        """FIELD 5a: an AE title with NUL, newline, backslash or non-ASCII."""
        with pytest.raises(RemoteProtocolError, match=f"{field} AE title"):
            rq(**{field: title})

    def test_an_empty_title_is_for_the_user_to_judge(self) -> None:
        assert rq(called=b"").called == ""

    def test_titles_in_an_ac_are_not_tested(self) -> None:
        """FIELD 4: reserved bytes and AE fields in -AC are not tested (PS3.8 §9.3.3)."""
        answer = ac(called=b"\0\xff\\ok\n", calling=bytes(16))
        assert (answer.called, answer.calling) == ("???ok?", "?" * 16)

    @pytest.mark.parametrize("title", ["A" * 17, "A\nB", "Ä"])
    def test_titles_that_do_not_fit_are_not_sent(self, title: str) -> None:
        with pytest.raises(LocalProtocolError, match="AE title"):
            encode_body(attrs.evolve(RQ, called=title))


class TestReserved:
    def test_reserved_bytes_are_not_tested(self) -> None:
        """FIELD 4: reserved bytes."""
        body = bytearray(fixed() + APPLICATION + context(1, item(0x30, CT), item(0x40, IMPLICIT)))
        for at in (2, 3, *range(36, 68), 69):
            body[at] = 0xEE
        assert decode_rq(memoryview(body)) == rq(context(1, item(0x30, CT), item(0x40, IMPLICIT)))
        assert decode_ac(memoryview(body)).called == "PACS"

    def test_the_protocol_version_is_kept(self) -> None:
        assert decode_rq(memoryview(fixed(version=0x8003) + APPLICATION)).protocol_version == 0x8003

    def test_unknown_items_are_skipped(self) -> None:
        """PS3.8 §9.3.1, at the level of the PDU and within a presentation context."""
        inner = context(1, item(0x31, b"?"), item(0x30, VERIFICATION), item(0x40, IMPLICIT))
        assert rq(item(0x99, b"new"), inner, item(0x21, b"")) == rq(CONTEXT)


class TestContexts:
    def test_private_sop_class(self) -> None:
        """FIELD 4: a private or unknown SOP class is proposed like any other."""
        private = "1.3.12.2.1107.5.9.1"
        (proposed,) = rq(context(255, item(0x30, private), item(0x40, EXPLICIT))).contexts
        assert proposed == PresentationContext(255, private, (EXPLICIT,))

    def test_128_contexts(self) -> None:
        """FIELD 4: context IDs are odd, 1 to 255, so there are 128."""
        contexts = tuple(PresentationContext(n, CT, (IMPLICIT,)) for n in range(1, 256, 2))
        request = attrs.evolve(RQ, contexts=contexts)
        assert decode_rq(memoryview(encode_body(request))) == request

    @pytest.mark.parametrize("context_id", [0, 2, 254])
    def test_even_ids(self, context_id: int) -> None:
        """FIELD 5a: zero and even context IDs."""
        with pytest.raises(RemoteProtocolError, match=f"ID {context_id}: not odd"):
            rq(context(context_id, item(0x30, CT), item(0x40, IMPLICIT)))
        with pytest.raises(RemoteProtocolError, match=f"ID {context_id}: not odd"):
            ac(result(context_id, 0, item(0x40, IMPLICIT)))

    @pytest.mark.parametrize("context_id", [0, 2, 256, 257])
    def test_ids_that_are_not_sent(self, context_id: int) -> None:
        """FIELD 5a: 256 has no place in one byte, so it is ours to refuse."""
        with pytest.raises(LocalProtocolError, match="must be odd"):
            encode_body(
                attrs.evolve(RQ, contexts=(PresentationContext(context_id, CT, (IMPLICIT,)),))
            )

    def test_duplicate_ids(self) -> None:
        """FIELD 5a: the same context ID twice."""
        with pytest.raises(RemoteProtocolError, match="ID 1: twice"):
            rq(CONTEXT, CONTEXT)
        with pytest.raises(RemoteProtocolError, match="ID 3: twice"):
            ac(result(3, 1), result(3, 2))

    def test_no_transfer_syntax(self) -> None:
        """FIELD 5a: an empty list of transfer syntaxes."""
        with pytest.raises(RemoteProtocolError, match="context 1: no transfer syntax"):
            rq(context(1, item(0x30, CT)))

    def test_a_repeated_transfer_syntax_is_carried(self) -> None:
        """FIELD 5a: a repeated transfer syntax harms nobody."""
        (proposed,) = rq(context(1, item(0x30, CT), item(0x40, IMPLICIT) * 2)).contexts
        assert proposed.transfer_syntaxes == (IMPLICIT, IMPLICIT)

    def test_no_abstract_syntax(self) -> None:
        with pytest.raises(RemoteProtocolError, match="context 1: no abstract syntax"):
            rq(context(1, item(0x40, IMPLICIT)))

    def test_two_abstract_syntaxes(self) -> None:
        with pytest.raises(RemoteProtocolError, match="abstract syntax: twice"):
            rq(context(1, item(0x30, CT) * 2, item(0x40, IMPLICIT)))

    @pytest.mark.parametrize("length", range(4))
    def test_a_context_shorter_than_its_head(self, length: int) -> None:
        with pytest.raises(RemoteProtocolError, match="less than 4"):
            rq(item(0x20, bytes(length)))

    @pytest.mark.parametrize("value", [1, 2, 3, 4, 99])
    @pytest.mark.parametrize(
        ("items", "syntax"),
        [
            ((), ""),
            ((item(0x40),), ""),
            ((item(0x40, b"\0\0"),), ""),
            ((item(0x40, "no uid"),), ""),
            ((item(0x40, "1" * 70),), ""),
            ((item(0x40, IMPLICIT), item(0x40, EXPLICIT)), IMPLICIT),
        ],
    )
    def test_a_rejected_context_may_hold_anything(
        self, value: int, items: tuple[bytes, ...], syntax: str
    ) -> None:
        """FIELD 4: in a rejected context the transfer syntax is not significant (§9.3.3.2)."""
        answer = ac(result(1, value, *items))
        assert answer.contexts == (PresentationContextResult(1, value, syntax),)
        assert decode_ac(memoryview(encode_body(answer))) == answer

    @pytest.mark.parametrize("items", [(), (item(0x40, IMPLICIT),) * 2])
    def test_an_accepted_context_has_one_transfer_syntax(self, items: tuple[bytes, ...]) -> None:
        """FIELD 4: the acceptor picks the transfer syntax, one only."""
        with pytest.raises(RemoteProtocolError, match=f"with {len(items)} transfer syntaxes"):
            ac(result(1, 0, *items))

    def test_an_accepted_context_has_a_real_transfer_syntax(self) -> None:
        with pytest.raises(RemoteProtocolError, match="empty UID"):
            ac(result(1, 0, item(0x40)))

    def test_no_context_at_all_is_for_the_user_to_judge(self) -> None:
        assert rq().contexts == ()
        assert ac().contexts == ()


class TestUIDs:
    @pytest.mark.parametrize("padding", [b"\0", b"\0\0", b" "])
    def test_padded(self, padding: bytes) -> None:
        """FIELD 4: UIDs padded with NUL in A-ASSOCIATE."""
        padded = context(
            1,
            item(0x30, VERIFICATION.encode() + padding),
            item(0x40, IMPLICIT.encode() + padding),
        )
        assert rq(padded) == rq(CONTEXT)

    def test_64_characters_fit(self) -> None:
        uid = "1." + "2" * 62
        (proposed,) = rq(context(1, item(0x30, uid), item(0x40, IMPLICIT))).contexts
        assert proposed.abstract_syntax == uid

    def test_65_characters_do_not(self) -> None:
        """FIELD 4: a UID of more than 64 characters is refused in words, not in silence."""
        with pytest.raises(RemoteProtocolError, match="abstract syntax: UID of 65 characters"):
            rq(context(1, item(0x30, "1." + "2" * 63), item(0x40, IMPLICIT)))

    @pytest.mark.parametrize("uid", ["../x", "/etc/passwd", "1.2\n", "1.2;x", "\xb2"])
    def test_other_characters(self, uid: str) -> None:
        """FIELD 5a: UIDs that would be paths."""
        with pytest.raises(RemoteProtocolError, match="other characters"):
            rq(context(1, item(0x30, uid), item(0x40, IMPLICIT)))

    @pytest.mark.parametrize("uid", ["..", "."])
    def test_dots_are_a_uid_to_us(self, uid: str) -> None:
        """Component rules are not tested; that no wire name becomes a path is held elsewhere."""
        (proposed,) = rq(context(1, item(0x30, uid), item(0x40, IMPLICIT))).contexts
        assert proposed.abstract_syntax == uid

    def test_what_is_no_uid_is_not_sent(self) -> None:
        with pytest.raises(LocalProtocolError, match="UID"):
            encode_body(attrs.evolve(RQ, contexts=(PresentationContext(1, "1" * 65, (IMPLICIT,)),)))
        with pytest.raises(LocalProtocolError, match="UID"):
            encode_body(attrs.evolve(AC, contexts=(PresentationContextResult(1, 0, ""),)))


class TestApplicationContext:
    def test_a_request_must_have_one(self) -> None:
        with pytest.raises(RemoteProtocolError, match="without application context"):
            decode_rq(memoryview(fixed() + CONTEXT))

    def test_twice(self) -> None:
        with pytest.raises(RemoteProtocolError) as caught:
            rq(APPLICATION)
        assert caught.value.abort_reason is AbortReason.UNEXPECTED_PDU_PARAMETER

    def test_another_one_is_for_the_user_to_reject(self) -> None:
        body = fixed() + item(0x10, "1.2.3")
        assert decode_rq(memoryview(body)).application_context == "1.2.3"

    def test_an_answer_may_leave_it_out(self) -> None:
        assert decode_ac(memoryview(fixed())).application_context == "1.2.840.10008.3.1.1.1"


class TestUserInformation:
    def test_unknown_sub_items_are_kept_verbatim_and_in_order(self) -> None:
        """FIELD 4: unknown user-information sub-items."""
        items = (
            UserItem(0x99, b"\x00\xff anything"),
            UserItem(0x51, b"\0\0\x40\0"),
            UserItem(0x57, b"versioned", reserved=1),
            UserItem(0x99, b""),
        )
        octets = b"".join(item(i.type, i.value, reserved=i.reserved) for i in items)
        assert rq(item(0x50, octets)).user_items == items
        assert encode_body(attrs.evolve(RQ, user_items=items)).endswith(item(0x50, octets))

    def test_none_at_all(self) -> None:
        assert rq().user_items == rq(item(0x50)).user_items == ()

    def test_twice(self) -> None:
        with pytest.raises(RemoteProtocolError, match="user information item: twice"):
            rq(item(0x50), item(0x50))

    def test_a_sub_item_longer_than_its_parent(self) -> None:
        """FIELD 5a: a sub-item's length beyond its parent's."""
        with pytest.raises(RemoteProtocolError, match="user information: item 51H length 5, 4"):
            rq(item(0x50, bytes.fromhex("51 00 0005 00004000")))

    def test_the_longest_leaves_room_for_a_maximum_length(self) -> None:
        items = (UserItem(0x99, bytes(MAXIMUM_USER_INFORMATION - 4)),)
        assert rq(item(0x50, item(0x99, items[0].value))).user_items == items
        with pytest.raises(RemoteProtocolError, match="too long to pass on"):
            rq(item(0x50, item(0x99, bytes(MAXIMUM_USER_INFORMATION - 3))))

    def test_more_than_fits_is_not_sent(self) -> None:
        with pytest.raises(LocalProtocolError, match="at most 65535"):
            encode_body(attrs.evolve(RQ, user_items=(UserItem(1, bytes(40000)),) * 2))


class TestLengths:
    @pytest.mark.parametrize("length", [0, 1, 67])
    def test_shorter_than_the_fixed_part(self, length: int) -> None:
        """FIELD 5a: A-ASSOCIATE of length 0 and 1."""
        with pytest.raises(RemoteProtocolError, match="less than the fixed 68"):
            decode_rq(memoryview(bytes(length)))
        with pytest.raises(RemoteProtocolError, match="less than the fixed 68"):
            decode_ac(memoryview(bytes(length)))

    def test_a_context_longer_than_the_pdu(self) -> None:
        with pytest.raises(RemoteProtocolError, match="A-ASSOCIATE-RQ: item 20H length 80, 10"):
            rq(bytes.fromhex("20 00 0050") + bytes(10))

    @pytest.mark.parametrize("length", ["0005", "0050", "FFFF"])
    def test_a_uid_longer_than_its_context(self, length: str) -> None:
        """FIELD 5a: a sub-item's length that is not its UID's (0x50)."""
        with pytest.raises(RemoteProtocolError, match="context 1: item 30H length"):
            rq(context(1, bytes.fromhex("30 00" + length + text("1.2"))))

    def test_a_uid_longer_than_its_length_says(self) -> None:
        """FIELD 5a: the rest of the UID is read as the next item, which it is not."""
        with pytest.raises(RemoteProtocolError):
            rq(context(1, bytes.fromhex("30 00 0002" + text("1.2.840")), item(0x40, IMPLICIT)))

    @pytest.mark.parametrize("rest", [b"\x20", b"\x20\0", b"\x20\0\0"])
    def test_bytes_after_the_last_item(self, rest: bytes) -> None:
        with pytest.raises(RemoteProtocolError, match=f"{len(rest)} bytes after its last item"):
            rq(rest)


@pytest.mark.parametrize("value", [-1, 256])
def test_octets(value: int) -> None:
    with pytest.raises(LocalProtocolError):
        associate.octet(value)
