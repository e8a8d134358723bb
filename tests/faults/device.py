"""A device of pynetdicom that tallies: what came, how often, and how it was answered.

    python device.py --port 11112 --ae-title PACS --tally tally.jsonl

It takes all storage in all transfer syntaxes. For each object one line goes to the tally, and is on
the disk before the answer is on its way: so that whatever is killed, an object that was answered is
in it. Misbehaviour falls on objects by a hash of the seed and their SOP Instance UID: the same ones
in each run, whatever their order.

    {"uid": …, "sha256": …, "kept": true, "status": "0000", "association": 3, "time": …}

`kept`: the device has it, whatever the sender heard. `status` null: it heard an A-ABORT.
"""

import argparse
import hashlib
import json
import os
import random
import threading
import time
from collections import Counter
from typing import Any

from pydicom.uid import UID
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, _config, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

SUCCESS = 0x0000


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ae-title", default="DEVICE")
    parser.add_argument("--tally", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--answer",
        action="append",
        default=[],
        metavar="STATUS:SHARE:TIMES",
        help="answer this share of the objects so, the first times that they come",
    )
    parser.add_argument(
        "--abort",
        metavar="SHARE:TIMES",
        default="0:0",
        help="A-ABORT instead of an answer, every second time with the object kept",
    )
    parser.add_argument(
        "--reject", type=float, default=0.0, help="this share of associations is rejected: busy"
    )
    parser.add_argument("--slow", type=float, default=0.0, help="up to so many seconds an object")
    return parser.parse_args()


class Device:
    """What the device does on each event; the options say how."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.tally = os.open(options.tally, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.came: Counter[str] = Counter()
        self.associations = 0
        self.lock = threading.Lock()
        self.pause = threading.Event()  # never set: waiting on it is a sleep
        self.answers = [
            (int(status, 16), float(share), int(times))
            for status, share, times in (rule.split(":") for rule in options.answer)
        ]
        share, times = options.abort.split(":")
        self.abort_share, self.abort_times = float(share), int(times)

    def drawn(self, *of: object) -> random.Random:
        """A source of chance that depends on nothing but the seed and `of`."""
        return random.Random(f"{self.options.seed} {of}")

    def requested(self, event: Any) -> None:
        with self.lock:
            self.associations += 1
            number = self.associations
        event.assoc.number = number
        if self.drawn("association", number).random() < self.options.reject:
            # pynetdicom has no hook to reject with chosen codes: its own rejection sends them.
            send_reject = event.assoc.acse.send_reject
            event.assoc.acse.send_reject = lambda *_: send_reject(0x02, 0x03, 0x02)
            event.assoc.ae.require_called_aet = True
            event.assoc.acceptor.ae_title = "NOBODY"

    def echo(self, event: Any) -> int:
        return SUCCESS

    def store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        with self.lock:
            self.came[uid] += 1
            came = self.came[uid]
        self.pause.wait(self.drawn("slow", uid, came).random() * self.options.slow)
        data_set = event.request.DataSet.getvalue()
        aborts = came <= self.abort_times
        if aborts and self.drawn("abort", uid).random() < self.abort_share:
            self.note(event, uid, data_set, kept=came % 2 == 0, status=None)
            event.assoc.abort()
            return SUCCESS
        status = self.status(uid, came)
        kept = status == SUCCESS or status >> 12 == 0xB
        self.note(event, uid, data_set, kept=kept, status=f"{status:04X}")
        return status

    def status(self, uid: str, came: int) -> int:
        point = self.drawn("status", uid).random()
        for status, share, times in self.answers:
            if point < share:
                return status if came <= times else SUCCESS
            point -= share
        return SUCCESS

    def note(
        self, event: Any, uid: str, data_set: bytes, *, kept: bool, status: str | None
    ) -> None:
        line = {
            "uid": uid,
            "sha256": hashlib.sha256(data_set).hexdigest(),
            "kept": kept,
            "status": status,
            "association": getattr(event.assoc, "number", 0),
            "time": time.time(),
        }
        os.write(self.tally, json.dumps(line).encode() + b"\n")
        os.fsync(self.tally)


def main() -> None:
    UID.__deepcopy__ = lambda uid, memo: uid  # type: ignore[attr-defined]  # as pynetdicom_scp.py
    options = arguments()
    device = Device(options)
    _config.UNRESTRICTED_STORAGE_SERVICE = True
    application_entity = AE(ae_title=options.ae_title)
    application_entity.maximum_pdu_size = 65536
    application_entity.maximum_associations = 100
    application_entity.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        assert context.abstract_syntax is not None
        application_entity.add_supported_context(
            context.abstract_syntax, list(ALL_TRANSFER_SYNTAXES)
        )
    application_entity.start_server(
        ("127.0.0.1", options.port),
        block=True,
        evt_handlers=[
            (evt.EVT_REQUESTED, device.requested),
            (evt.EVT_C_ECHO, device.echo),
            (evt.EVT_C_STORE, device.store),
        ],
    )


if __name__ == "__main__":
    main()
