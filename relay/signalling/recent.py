"""The last few keys seen, so that something is said once and not in a loop."""

from collections import OrderedDict


class Recent:
    """A set that forgets its oldest members beyond `size`."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._keys: OrderedDict[bytes, None] = OrderedDict()

    def add(self, key: bytes) -> bool:
        """Remember `key`; True if it was not there."""
        if key in self._keys:
            return False
        self._keys[key] = None
        if len(self._keys) > self._size:
            self._keys.popitem(last=False)
        return True
