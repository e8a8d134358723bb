"""The signed URLs of the Bridge's own store: made for Routers, and held to when one comes back.

    <base>/v1/blobs/<name>?e=<expires>&l=<size limit>&s=<signature>[&a=<tag of who may wait>]

What is signed is method, name and the query's values as they stand there: whatever else is in a
query, or in another order, was not signed here.
"""

import hmac
import re
from collections.abc import Callable

from relay.errors import Refused
from relay.providers import SignedRequest
from relay.providers.names import check_object_name, is_object_name

BLOB_PATH = "/v1/blobs/"
# Hex digits of what stands for a Router in its requests ahead of time.
READER_TAG = 16

_SIGNATURE_DOMAIN = b"relay/1/blob\0"
_READER_DOMAIN = b"relay/1/blob/reader\0"
_QUERY = re.compile(rb"e=(\d{1,16})&l=(\d{1,16})&s=([0-9a-f]{64})(?:&a=([0-9a-f]{16}))?")


class BlobURLs:
    """Signs with `key` for those who reach the store at `base_url`. `clock` gives Unix seconds."""

    def __init__(self, base_url: str, key: bytes, clock: Callable[[], float]) -> None:
        self._prefix = base_url.rstrip("/") + BLOB_PATH
        self._key = key
        self._clock = clock

    def sign(
        self, method: str, name: str, lifetime: int, limit: int = 0, reader: bytes = b""
    ) -> SignedRequest:
        """A request good for `lifetime` seconds; with `reader`, one of that Router's that may wait.

        `limit` is the size in bytes of a PUT at most. Raises ProviderError for a name that is none.
        """
        check_object_name(name)
        expires = int(self._clock()) + lifetime
        tag = self._mac(_READER_DOMAIN + reader)[:READER_TAG] if reader else ""
        signature = self._signature(method, name, b"%d" % expires, b"%d" % limit, tag.encode())
        url = f"{self._prefix}{name}?e={expires}&l={limit}&s={signature}"
        return SignedRequest(method, f"{url}&a={tag}" if tag else url, (), expires)

    def verify(self, method: str, name: str, query: bytes) -> tuple[int, str]:
        """The size limit of this request (0 unless PUT), and the tag of the Router that may wait.

        Raises Refused (403) if it was not signed here, was signed for something else, or expired.
        """
        found = _QUERY.fullmatch(query)
        if found is None or not is_object_name(name):
            raise Refused(403, "not a signed request of this store")
        expires, limit, signature, tag = found.groups(b"")
        expected = self._signature(method, name, expires, limit, tag)
        if not hmac.compare_digest(expected.encode(), signature):
            raise Refused(403, "signature does not hold")
        if self._clock() >= int(expires):
            raise Refused(403, "signed request has expired")
        return int(limit), tag.decode()

    def _signature(self, method: str, name: str, expires: bytes, limit: bytes, tag: bytes) -> str:
        # None of them holds a newline, so no two requests share these bytes.
        signed = b"%b%b\n%b\n%b\n%b" % (
            _SIGNATURE_DOMAIN,
            method.encode(),
            name.encode(),
            expires,
            limit,
        )
        return self._mac(signed + b"\n" + tag if tag else signed)

    def _mac(self, message: bytes) -> str:
        return hmac.digest(self._key, message, "sha256").hex()
