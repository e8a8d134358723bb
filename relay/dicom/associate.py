"""The bytes of A-ASSOCIATE-RQ and -AC behind their header (PS3.8 §9.3.2 and §9.3.3).

A fixed part, then items. Items of a type that PS3.8 does not know are skipped (PS3.8 §9.3.1);
sub-items of the user information are kept as bytes, whatever they are, so that a relay hands them
on unchanged.

    Byte 7-8 (here 1-2)   Protocol-version
         11-26            Called-AE-title
         27-42            Calling-AE-title
         43-74            Reserved
         75-              10H Application Context, 20H or 21H Presentation Context ..., 50H User
                          Information
"""

import struct
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import TypeVar

from relay.dicom.atoms import (
    AE_TITLE_LENGTH,
    APPLICATION_CONTEXT,
    UID_LENGTH,
    AAssociateAC,
    AAssociateRQ,
    ContextResult,
    PresentationContext,
    PresentationContextResult,
    UserItem,
    encode_uid,
    is_ae_octets,
    is_ae_title,
    is_uid,
    unpadded_uid,
)
from relay.errors import AbortReason, LocalProtocolError, RemoteProtocolError

# The user information item's length is a 16 bit field. What is received may fill it but for these
# 8 bytes: a hop that passes the items on must be able to add a Maximum Length that was absent.
MAXIMUM_USER_INFORMATION = 0xFFFF - 8

_FIXED_ASSOCIATE = struct.Struct(">HH16s16s32x")  # version, reserved, called, calling, reserved
_ITEM = struct.Struct(">BBH")


class ItemType(IntEnum):
    """The items that this module reads itself (PS3.8 §9.3.2, §9.3.3)."""

    APPLICATION_CONTEXT = 0x10
    PRESENTATION_CONTEXT_RQ = 0x20
    PRESENTATION_CONTEXT_AC = 0x21
    ABSTRACT_SYNTAX = 0x30
    TRANSFER_SYNTAX = 0x40
    USER_INFORMATION = 0x50


def encode_body(atom: AAssociateRQ | AAssociateAC) -> bytes:
    """What follows the PDU's header. Raises `LocalProtocolError`."""
    match atom:
        case AAssociateRQ():
            contexts = b"".join(map(_encode_context, atom.contexts))
        case AAssociateAC():
            contexts = b"".join(map(_encode_context_result, atom.contexts))
    user = b"".join(_item(i.type, i.value, i.reserved) for i in atom.user_items)
    return b"".join(
        (
            _FIXED_ASSOCIATE.pack(
                atom.protocol_version & 0xFFFF, 0, _ae(atom.called), _ae(atom.calling)
            ),
            _item(ItemType.APPLICATION_CONTEXT, encode_uid(atom.application_context)),
            contexts,
            _item(ItemType.USER_INFORMATION, user) if user else b"",
        )
    )


def _encode_context(context: PresentationContext) -> bytes:
    return _item(
        ItemType.PRESENTATION_CONTEXT_RQ,
        bytes((context_id_octet(context.id), 0, 0, 0))
        + _item(ItemType.ABSTRACT_SYNTAX, encode_uid(context.abstract_syntax))
        + b"".join(
            _item(ItemType.TRANSFER_SYNTAX, encode_uid(t)) for t in context.transfer_syntaxes
        ),
    )


def _encode_context_result(context: PresentationContextResult) -> bytes:
    syntax = context.transfer_syntax
    return _item(
        ItemType.PRESENTATION_CONTEXT_AC,
        bytes((context_id_octet(context.id), 0, octet(context.result), 0))
        + _item(
            ItemType.TRANSFER_SYNTAX, encode_uid(syntax) if syntax or context.accepted else b""
        ),
    )


def _item(item_type: int, value: bytes, reserved: int = 0) -> bytes:
    if len(value) > 0xFFFF:
        raise LocalProtocolError(f"item {item_type:02X}H of {len(value)} bytes: at most 65535 fit")
    return _ITEM.pack(octet(item_type), octet(reserved), len(value)) + value


def octet(value: int) -> int:
    """`value`, which must fit one byte. Raises `LocalProtocolError`."""
    if not 0 <= value <= 0xFF:
        raise LocalProtocolError(f"{value} does not fit one byte")
    return value


def context_id_octet(value: int) -> int:
    """`value`, which must be a presentation context ID. Raises `LocalProtocolError`."""
    if not (0 < value <= 0xFF and value & 1):
        raise LocalProtocolError(f"presentation context ID {value}: must be odd, 1 to 255")
    return value


def _ae(title: str) -> bytes:
    if not is_ae_title(title):
        raise LocalProtocolError("AE title: at most 16 printable ASCII characters, no backslash")
    return title.encode("ascii").ljust(AE_TITLE_LENGTH)


def decode_rq(body: memoryview) -> AAssociateRQ:
    """From what follows the PDU's header. Raises `RemoteProtocolError` that names the field."""
    version, called, calling = _decode_fixed(body, "A-ASSOCIATE-RQ")
    application, contexts, user_items = _decode_variable(
        body, "A-ASSOCIATE-RQ", ItemType.PRESENTATION_CONTEXT_RQ, _decode_context
    )
    if application is None:
        raise RemoteProtocolError("A-ASSOCIATE-RQ without application context item")
    return AAssociateRQ(
        _decode_ae(called, "called AE title"),
        _decode_ae(calling, "calling AE title"),
        contexts,
        user_items,
        application,
        version,
    )


def decode_ac(body: memoryview) -> AAssociateAC:
    """From what follows the PDU's header. Raises `RemoteProtocolError` that names the field."""
    version, called, calling = _decode_fixed(body, "A-ASSOCIATE-AC")
    application, contexts, user_items = _decode_variable(
        body, "A-ASSOCIATE-AC", ItemType.PRESENTATION_CONTEXT_AC, _decode_context_result
    )
    return AAssociateAC(
        _harmless_ae(called),
        _harmless_ae(calling),
        contexts,
        user_items,
        application or APPLICATION_CONTEXT,
        version,
    )


_Context = TypeVar("_Context", PresentationContext, PresentationContextResult)


def _decode_variable(
    body: memoryview, name: str, context_item: int, decode: Callable[[memoryview], _Context]
) -> tuple[str | None, tuple[_Context, ...], tuple[UserItem, ...]]:
    """The variable items: application context, presentation contexts, user information."""
    application: str | None = None
    contexts: dict[int, _Context] = {}
    user_items: tuple[UserItem, ...] | None = None
    for item, value in _items(body[_FIXED_ASSOCIATE.size :], name):
        if item == ItemType.APPLICATION_CONTEXT:
            _once(application, "application context item")
            application = _decode_uid(value, "application context name")
        elif item == context_item:
            context = decode(value)
            _once(contexts.get(context.id), f"presentation context ID {context.id}")
            contexts[context.id] = context
        elif item == ItemType.USER_INFORMATION:
            _once(user_items, "user information item")
            user_items = _decode_user_information(value)
    return application, tuple(contexts.values()), user_items or ()


def _decode_fixed(body: memoryview, name: str) -> tuple[int, bytes, bytes]:
    if len(body) < _FIXED_ASSOCIATE.size:
        raise RemoteProtocolError(f"{name} length {len(body)}: less than the fixed 68")
    version, _, called, calling = _FIXED_ASSOCIATE.unpack_from(body)
    return version, called, calling


def _items(view: memoryview, parent: str) -> Iterator[tuple[int, memoryview]]:
    for item_type, _, value in _items_verbatim(view, parent):
        yield item_type, value


def _items_verbatim(view: memoryview, parent: str) -> Iterator[tuple[int, int, memoryview]]:
    at, end = 0, len(view)
    while at < end:
        if end - at < _ITEM.size:
            raise RemoteProtocolError(f"{parent}: {end - at} bytes after its last item")
        item_type, reserved, length = _ITEM.unpack_from(view, at)
        at += _ITEM.size
        if length > end - at:
            raise RemoteProtocolError(
                f"{parent}: item {item_type:02X}H length {length}, {end - at} bytes left"
            )
        yield item_type, reserved, view[at : at + length]
        at += length


def _once(earlier: object, name: str) -> None:
    if earlier is not None:
        raise RemoteProtocolError(f"{name}: twice", AbortReason.UNEXPECTED_PDU_PARAMETER)


def _decode_context(value: memoryview) -> PresentationContext:
    context_id, _ = _decode_context_head(value)
    where = f"presentation context {context_id}"
    abstract: str | None = None
    transfer: list[str] = []
    for item, uid in _items(value[4:], where):
        match item:
            case ItemType.ABSTRACT_SYNTAX:
                _once(abstract, f"{where}: abstract syntax")
                abstract = _decode_uid(uid, f"{where}: abstract syntax")
            case ItemType.TRANSFER_SYNTAX:
                transfer.append(_decode_uid(uid, f"{where}: transfer syntax"))
    if abstract is None:
        raise RemoteProtocolError(f"{where}: no abstract syntax")
    if not transfer:
        raise RemoteProtocolError(f"{where}: no transfer syntax")
    return PresentationContext(context_id, abstract, tuple(transfer))


def _decode_context_result(value: memoryview) -> PresentationContextResult:
    context_id, result = _decode_context_head(value)
    where = f"presentation context {context_id}"
    syntaxes = [uid for item, uid in _items(value[4:], where) if item == ItemType.TRANSFER_SYNTAX]
    if result != ContextResult.ACCEPTANCE:
        # PS3.8 §9.3.3.2: not significant, not to be tested; many send it empty or leave it out.
        syntax = unpadded_uid(syntaxes[0]) if syntaxes else ""
        return PresentationContextResult(context_id, result, syntax if is_uid(syntax) else "")
    if len(syntaxes) != 1:
        raise RemoteProtocolError(f"{where}: accepted with {len(syntaxes)} transfer syntaxes")
    return PresentationContextResult(
        context_id, result, _decode_uid(syntaxes[0], f"{where}: transfer syntax")
    )


def _decode_context_head(value: memoryview) -> tuple[int, int]:
    if len(value) < 4:
        raise RemoteProtocolError(f"presentation context item length {len(value)}: less than 4")
    if not value[0] & 1:
        raise RemoteProtocolError(f"presentation context ID {value[0]}: not odd")
    return value[0], value[2]


def _decode_user_information(value: memoryview) -> tuple[UserItem, ...]:
    if len(value) > MAXIMUM_USER_INFORMATION:
        raise RemoteProtocolError(f"user information of {len(value)} bytes: too long to pass on")
    return tuple(
        UserItem(item, bytes(content), reserved)
        for item, reserved, content in _items_verbatim(value, "user information")
    )


def _decode_uid(value: memoryview, name: str) -> str:
    uid = unpadded_uid(value)
    if not uid:
        raise RemoteProtocolError(f"{name}: empty UID")
    if len(uid) > UID_LENGTH:
        raise RemoteProtocolError(f"{name}: UID of {len(uid)} characters, at most 64 are allowed")
    if not is_uid(uid):
        raise RemoteProtocolError(f"{name}: UID with other characters than digits and dots")
    return uid


def _decode_ae(title: bytes, name: str) -> str:
    if not is_ae_octets(title):
        raise RemoteProtocolError(f"{name}: control, non-ASCII or backslash character")
    return title.decode("ascii").strip(" ")


def _harmless_ae(title: bytes) -> str:
    """An AE title that must not be tested, but may be shown or sent on."""
    return "".join(chr(c) if is_ae_octets(bytes((c,))) else "?" for c in title).strip(" ")
