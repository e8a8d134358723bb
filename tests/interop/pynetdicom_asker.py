"""A pynetdicom requestor as a process of its own: asks a device which pairs it takes, one by one.

    python pynetdicom_asker.py 127.0.0.1 11112 --calling WS --called PACS pairs.json

The file is a JSON list of [abstract syntax, transfer syntax]; those that were accepted are printed
as another one.
"""

import argparse
import json
from pathlib import Path

from pynetdicom import AE, build_context

CONTEXTS = 128  # of one association (PS3.8 §9.3.2.2)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--calling", required=True)
    parser.add_argument("--called", required=True)
    options = parser.parse_args()
    pairs = json.loads(options.pairs.read_text())
    accepted = []
    for at in range(0, len(pairs), CONTEXTS):
        contexts = [build_context(abstract, syntax) for abstract, syntax in pairs[at:][:CONTEXTS]]
        association = AE(ae_title=options.calling).associate(
            options.host, options.port, contexts, ae_title=options.called
        )
        if not association.is_established:
            # Where none is accepted pynetdicom aborts; anything else is an error of the test's.
            if association.is_rejected or not association.rejected_contexts:
                raise SystemExit("no association")
            continue
        accepted += [
            [context.abstract_syntax, context.transfer_syntax[0]]
            for context in association.accepted_contexts
        ]
        association.release()
    print(json.dumps(accepted))


if __name__ == "__main__":
    main()
