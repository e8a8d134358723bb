"""What is held of another hospital's device: what it takes, who said so, and until when."""

import apsw
import attrs

from relay.dicom.pdu import PresentationContext
from relay.router.pairs import Pairs

Key = tuple[str, str]  # called, calling: both as they are published

_COLUMNS = "called, calling, peer, serial, expires, split, window, commitment, pairs, refused"


@attrs.frozen(slots=True)
class Held:
    """What `peer` has said of its device. `expires` is Unix seconds; `refused` are the pairs that
    the device did not take all the same."""

    peer: bytes
    serial: int
    expires: int
    split: int
    window: int
    commitment: bool
    pairs: Pairs = attrs.field(repr=False)
    refused: Pairs = attrs.field(factory=Pairs)

    def takes(self, sop_class: str, transfer_syntax: str) -> bool:
        """Whether the device takes objects of this class in this transfer syntax."""
        pair = sop_class, transfer_syntax
        return pair in self.pairs and pair not in self.refused

    def takes_class(self, sop_class: str) -> bool:
        """Whether the device takes objects of this class in any transfer syntax."""
        return any(self.takes(sop_class, syntax) for syntax in self.pairs.taken.get(sop_class, ()))

    def choose(self, context: PresentationContext) -> str | None:
        """The first of the transfer syntaxes proposed that the device takes; None: it takes none.

        The requestor's order is its preference by habit only (PS3.8 §9.3.2.2 has none), and the
        best there is: what it likes most it need not transcode.
        """
        for syntax in context.transfer_syntaxes:
            if self.takes(context.abstract_syntax, syntax):
                return syntax
        return None


def read(connection: apsw.Connection) -> list[tuple[Key, Held]]:
    """All rows, each with its titles."""
    return [
        (
            (called, calling),
            Held(
                peer=peer,
                serial=serial,
                expires=expires,
                split=split,
                window=window,
                commitment=bool(commitment),
                pairs=Pairs.unpack(pairs),
                refused=Pairs.unpack(refused),
            ),
        )
        for called, calling, peer, serial, expires, split, window, commitment, pairs, refused in (
            connection.execute(f"SELECT {_COLUMNS} FROM knowledge_held")
        )
    ]


def write(connection: apsw.Connection, key: Key, held: Held) -> None:
    """Keep the row, in place of the one for the same titles."""
    connection.execute(
        f"INSERT OR REPLACE INTO knowledge_held ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *key,
            held.peer,
            held.serial,
            held.expires,
            held.split,
            held.window,
            int(held.commitment),
            held.pairs.pack(),
            held.refused.pack(),
        ),
    )
