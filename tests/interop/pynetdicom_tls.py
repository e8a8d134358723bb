"""pynetdicom over TLS, as a process of its own: sends Part 10 files, or takes what it is sent.

    python pynetdicom_tls.py send --host 127.0.0.1 --port 2762 --calling A --called B FILE...
    python pynetdicom_tls.py serve --port 2762 --ae-title PACS --directory out

Both show `--certificate` with `--key` and trust `--authority`; the acceptor wants a certificate
from who calls. Data sets go out exactly as they lie in the files, and are kept as they came, in
`<SOP Instance UID>.dataset`.
"""

import argparse
import ssl
import sys
import threading
from pathlib import Path

from pydicom import dcmread
from pynetdicom import AE, AllStoragePresentationContexts, _config, evt
from pynetdicom.events import Event
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import Verification


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["send", "serve"])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--calling", default="PYNETDICOM")
    parser.add_argument("--called", default="ANY")
    parser.add_argument("--ae-title", default="PYNETDICOM")
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--certificate", type=Path)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--authority", type=Path, required=True)
    parser.add_argument("--maximum-length", type=int, default=16382)
    parser.add_argument("files", type=Path, nargs="*")
    return parser.parse_intermixed_args()


def context(options: argparse.Namespace, purpose: ssl.Purpose) -> ssl.SSLContext:
    made = ssl.create_default_context(purpose, cafile=options.authority)
    if options.certificate:
        made.load_cert_chain(options.certificate, options.key)
    return made


def send(options: argparse.Namespace) -> int:
    """C-ECHO and a C-STORE of each file; how many did not succeed."""
    metas = [dcmread(path, stop_before_pixels=True, force=True).file_meta for path in options.files]
    pairs = {(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID) for meta in metas}
    entity = AE(options.calling)
    entity.maximum_pdu_size = options.maximum_length
    entity.requested_contexts = [
        build_context(Verification),
        *(build_context(sop_class, syntax) for sop_class, syntax in sorted(pairs)),
    ]
    association = entity.associate(
        options.host,
        options.port,
        ae_title=options.called,
        max_pdu=options.maximum_length,
        tls_args=(context(options, ssl.Purpose.SERVER_AUTH), options.host),
    )
    if not association.is_established:
        sys.stdout.write("no association\n")
        return 1
    statuses = [association.send_c_echo().Status]
    statuses += [association.send_c_store(path).Status for path in options.files]
    association.release()
    sys.stdout.write(f"{statuses}\n")
    return sum(status != 0 for status in statuses)


def serve(options: argparse.Namespace) -> int:
    """Take everything, until the process is ended."""

    def store(event: Event) -> int:
        name = f"{event.request.AffectedSOPInstanceUID}.dataset"
        (options.directory / name).write_bytes(event.request.DataSet.getvalue())
        return 0

    served = context(options, ssl.Purpose.CLIENT_AUTH)
    served.verify_mode = ssl.CERT_REQUIRED
    entity = AE(options.ae_title)
    entity.maximum_pdu_size = options.maximum_length
    entity.add_supported_context(Verification)
    for storage in AllStoragePresentationContexts:
        entity.add_supported_context(storage.abstract_syntax, SYNTAXES)
    entity.start_server(
        (options.host, options.port),
        block=False,
        ssl_context=served,
        evt_handlers=[(evt.EVT_C_STORE, store), (evt.EVT_C_ECHO, lambda _: 0)],
    )
    threading.Event().wait()
    return 0


SYNTAXES = [
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.5",
]

if __name__ == "__main__":
    _config.STORE_SEND_CHUNKED_DATASET = True
    given = arguments()
    sys.exit(send(given) if given.action == "send" else serve(given))
