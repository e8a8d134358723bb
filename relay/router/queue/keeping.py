"""What the spool is told of an object that has come whole: its row, before it is in custody."""

from relay.dicom import elements
from relay.dicom.commandset import CommandSet
from relay.dicom.elements import STUDY_INSTANCE_UID, Element
from relay.dicom.negotiation import AcceptedContext
from relay.dicom.pdu import is_uid
from relay.spool.items import Batch, Item, State
from relay.spool.segments import StoredObject


def item_of(
    batch: Batch,
    context: AcceptedContext,
    command: CommandSet,
    stored: StoredObject,
    *,
    accepted: float,
) -> Item:
    """The item of `stored`, which came with `command`; custody gives it its numbers."""
    return Item(
        number=0,
        id=stored.item,
        batch=0,
        called=batch.called,
        state=State.WAITING,
        sop_class=context.abstract_syntax,
        sop_instance=command.sop_instance_uid or "",
        transfer_syntax=context.transfer_syntax,
        command=command.encode(),
        length=stored.length,
        digest=stored.digest,
        key=stored.key,
        key_name=stored.key_name,
        folder=stored.folder,
        size=stored.size,
        accepted=accepted,
        study=study_of(stored.prefix, context.transfer_syntax),
    )


def study_of(prefix: bytes, transfer_syntax: str) -> str:
    """The Study Instance UID (0020,000D) in the beginning of a data set; empty where it cannot be
    read, which stops nothing."""
    encoding = elements.encoding_of(transfer_syntax)
    if encoding is None:
        return ""
    found = elements.find(prefix, STUDY_INSTANCE_UID, encoding, whole=True)
    text = found.text(prefix) if isinstance(found, Element) else ""
    return text if is_uid(text) else ""
