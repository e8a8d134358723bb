"""Writes the home-made test vectors: python -m tests.vectors.generate

Inputs come of a fixed seed; HPKE's encapsulation is the library's own, so those ciphertexts, and
what follows from them, differ with every run. Failures are made by changing one thing in what would
succeed, under the right key where the change is to reach past the tag.
"""

from tests.vectors import flows, handshakes, identities, notes
from tests.vectors.reading import FOLDER


def main() -> None:
    for path in FOLDER.glob("*.txt"):
        path.unlink()
    identities.generate()
    handshakes.generate()
    flows.generate()
    notes.generate()
    print(f"{len(list(FOLDER.glob('*.txt')))} vectors")


if __name__ == "__main__":
    main()
