"""How many bytes of answers the federation holds at once, all merged searches together."""

# A merged search holds its answers until every device has said its last. One answer is some hundred
# bytes to some KiB: this is tens of thousands of them, in a process that has other work.
MAXIMUM_HELD = 32 * 2**20


class Held:
    """Bytes that are held, within `maximum`."""

    def __init__(self, maximum: int = MAXIMUM_HELD) -> None:
        self.maximum = maximum
        self.size = 0

    def take(self, count: int) -> bool:
        """Hold `count` bytes more, if there is room: all or nothing."""
        if self.size + count > self.maximum:
            return False
        self.size += count
        return True

    def free(self, count: int) -> None:
        """`count` bytes are held no more."""
        assert 0 <= count <= self.size, "more is freed than was taken"
        self.size -= count
