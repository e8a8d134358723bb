"""Certificates for tests of TLS: an authority in a folder, and what it issues, as files in PEM."""

from datetime import datetime
from pathlib import Path

import attrs
import trustme

LOOPBACK = "127.0.0.1"


@attrs.frozen(slots=True)
class Identity:
    """A certificate chain and its key."""

    certificate: Path
    private_key: Path

    @property
    def dcmtk(self) -> tuple[str, ...]:
        """DCMTK's option for it."""
        return ("+tls", str(self.private_key), str(self.certificate))


class Authority:
    """A certificate authority of a test; `file` is its certificate."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._authority = trustme.CA()
        self._issued = 0
        self.file = folder / "authority.pem"
        self._authority.cert_pem.write_to_path(self.file)

    def issue(
        self,
        *names: str,
        common_name: str | None = None,
        not_after: datetime | None = None,
        key_type: trustme.KeyType = trustme.KeyType.ECDSA,
    ) -> Identity:
        """A certificate for `names`, or for loopback if none is given."""
        self._issued += 1
        leaf = self._authority.issue_cert(
            *(names or (LOOPBACK, "localhost")),
            common_name=common_name,
            not_after=not_after,
            key_type=key_type,
        )
        identity = Identity(
            self._folder / f"certificate{self._issued}.pem", self._folder / f"key{self._issued}.pem"
        )
        identity.certificate.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(identity.private_key)
        identity.private_key.chmod(0o600)
        return identity
