"""One segment of an object's file, sealed while it comes.

sealed = AES-256-GCM(the object's key, nonce n of 96 bits, the segment) | its tag
"""

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from relay.dicom.pdu import Buffer

# What is sealed, and held in memory, at a time: most objects are one segment, and so one hop to a
# thread or none. Of even length: a fragment of a data set is (PS3.8 §E.2).
SEGMENT = 1024 * 1024
TAG_SIZE = 16


class SegmentSealer:
    """Segment `number` of an object with this key, sealed into `memory`, as fragments come.

    `memory` has room for the segment and TAG_SIZE bytes.
    """

    def __init__(self, key: bytes, number: int, memory: memoryview) -> None:
        self.memory = memory
        self._size = 0
        self._encryptor = Cipher(algorithms.AES(key), modes.GCM(nonce(number))).encryptor()

    def add(self, part: Buffer) -> None:
        """Seal what comes next."""
        self._size += self._encryptor.update_into(part, self.memory[self._size :])

    def end(self) -> memoryview:
        """The whole segment, sealed; it lies in `memory`."""
        self._encryptor.finalize()
        end = self._size + TAG_SIZE
        self.memory[self._size : end] = self._encryptor.tag
        return self.memory[:end]


def nonce(segment: int) -> bytes:
    """What a segment is sealed with beside its object's key."""
    return segment.to_bytes(12, "big")
