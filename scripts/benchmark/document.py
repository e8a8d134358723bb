"""What the benchmark says is kept in docs/: a section of its own for each kind of run.

Between a section's mark and the next end mark stands what this program has written; all around it
is written by hand.
"""

import json
from pathlib import Path
from typing import Any

DOCUMENT = Path("docs/performance.md")
RESULTS = Path("docs/performance.json")

CONFIRMED = "<!-- scripts/bench --profile --write -->"
QUEUED = "<!-- scripts/bench --queue --all --write -->"
FAR = "<!-- scripts/bench --wan --write -->"
FEDERATED = "<!-- scripts/bench --federation --write -->"
BRIDGE = "<!-- python -m scripts.benchmark.bridge_load --write -->"
END = "<!-- end -->"


def write_section(mark: str, text: str) -> None:
    """Put `text` into the section of `mark`. Raises ValueError if the document has none."""
    before, found, rest = DOCUMENT.read_text().partition(mark)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"{DOCUMENT}: no section {mark}")
    DOCUMENT.write_text(f"{before}{mark}\n\n{text}\n{END}{after}")


def write_results(results: dict[str, Any]) -> None:
    """Keep `results`; what other runs have left under other names stays."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(kept | results, indent=1) + "\n")
