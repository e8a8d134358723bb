"""A pynetdicom archive that answers C-MOVE, as a process of its own; options say how it behaves.

    python pynetdicom_holder.py --port 11112 --ae-title PACS --serve images --destination WS1=11113

Each C-MOVE sends all of its files to the Move Destination, which it must know.
"""

import argparse
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, StoragePresentationContexts, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelMove, Verification

PENDING, CANCELLED = 0xFF00, 0xFE00


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ae-title", default="HOLDER")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--serve", type=Path, required=True, help="folder of Part 10 files")
    parser.add_argument(
        "--destination", action="append", default=[], metavar="TITLE=PORT", help="whom it knows"
    )
    parser.add_argument("--slow", type=float, default=0.0, help="seconds before each object")
    parser.add_argument(
        "--no-originator", action="store_true", help="leave out (0000,1030) and (0000,1031)"
    )
    return parser.parse_args()


class Holder:
    """What it does on each event."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.known = dict(entry.split("=") for entry in options.destination)
        self.pause = threading.Event()  # never set: waiting on it is a sleep

    def move(self, event: Event) -> Iterator[Any]:
        port = self.known.get(str(event.move_destination).strip())
        if port is None:
            yield None, None
            return
        files = sorted(self.options.serve.iterdir())
        # All that any file may need: the contexts of the association with the destination.
        contexts = [c for c in StoragePresentationContexts if c.abstract_syntax in CLASSES]
        yield "127.0.0.1", int(port), {"contexts": contexts}
        yield len(files)
        for path in files:
            self.pause.wait(self.options.slow)
            if event.is_cancelled:
                yield CANCELLED, Dataset()
                return
            yield PENDING, dcmread(path)


CLASSES = {"1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.7"}


def without_originator() -> None:
    """Have pynetdicom leave out what some archives leave out."""
    send = Association.send_c_store

    def send_c_store(self: Association, dataset: Any, *arguments: Any, **options: Any) -> Any:
        options.update(originator_aet=None, originator_id=None)
        return send(self, dataset, *arguments, **options)

    Association.send_c_store = send_c_store


def main() -> None:
    options = arguments()
    if options.no_originator:
        without_originator()
    holder = Holder(options)
    entity = AE(ae_title=options.ae_title)
    entity.maximum_associations = 100
    entity.add_supported_context(Verification)
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelMove)
    entity.start_server(
        ("127.0.0.1", options.port), block=True, evt_handlers=[(evt.EVT_C_MOVE, holder.move)]
    )


if __name__ == "__main__":
    main()
