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
    the device did not take at a delivery, and is not known to take since."""

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

    def after(self, before: "Held | None") -> "Held":
        """This, less what the device has refused while the same peer's `before` was held.

        A later serial, which says that it takes that, counts; the same one was said before.
        """
        if before is None or before.peer != self.peer:
            return self
        later = before.serial != self.serial
        refused = (pair for pair in before.refused if not (later and pair in self.pairs))
        return attrs.evolve(self, refused=Pairs.of(refused))

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
