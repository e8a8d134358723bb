"""S3 and what speaks its language, by obstore: signing here, sweeping in threads.

obstore's asynchronous calls need asyncio, so the plain ones run in threads, each with a deadline;
signing with a key pair is arithmetic and needs none. Signatures are Signature Version 4 in the
query, over method, host and path. Neither headers nor sizes are signed: put-if-absent
(`If-None-Match: *`) protects from accidents alone, and a size limit cannot be enforced.
"""

import re
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

import attrs
import httpx
import obstore
import trio
from obstore.store import S3Store

from relay.errors import ProviderError
from relay.providers import Finding, SignedRequest, StoredObject
from relay.providers.names import check_object_name, is_object_name
from relay.providers.probe import alive, probe, reached
from relay.providers.s3answers import AnswerReader, words_for
from relay.providers.settings import Settings
from relay.values import Secret

if TYPE_CHECKING:
    from obstore.store import S3Credential

T = TypeVar("T")

# Seconds. One request of obstore's own, tried twice at most; after that the store is down.
REQUEST_TIMEOUT = 10
RETRY_TIMEOUT = 15
# For one call in a thread. obstore ends it before; a thread that hangs all the same is left behind.
CALL_TIMEOUT = 30.0
# Threads that wait for one store at once, so that one that hangs takes none of the others'.
THREADS = 4
# Names in one piece of a listing: what S3 gives in one answer.
LIST_PIECE = 1000

DEFAULT_PREFIX = "relay"
# What every region takes; a store of one's own usually has no regions.
DEFAULT_REGION = "us-east-1"

# A second PUT is answered 412. S3, "PutObject", conditional writes.
PUT_HEADERS = (("If-None-Match", "*"),)

Method = Literal["PUT", "GET", "DELETE"]

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGION = re.compile(r"[a-z0-9-]{1,40}")


@attrs.frozen(slots=True)
class S3Settings:
    """Where the bucket is and what opens it, read from what the administrator entered."""

    bucket: str
    region: str
    endpoint: str
    virtual_hosted: bool
    prefix: str
    access_key: Secret | None
    secret_key: Secret | None
    session_token: Secret | None
    authority: bytes | None = attrs.field(repr=False)
    proxy: Secret | None
    bulk_delete: bool
    allow_versioning: bool
    allow_retention: bool

    @classmethod
    def read(cls, given: Mapping[str, str]) -> "S3Settings":
        """Raises ProviderError, naming the key."""
        settings = Settings("s3", given)
        bucket = settings.text("bucket")
        if not _BUCKET.fullmatch(bucket):
            raise settings.wrong("bucket", "expected a bucket's name: 3 to 63 of a-z, 0-9, . and -")
        endpoint = settings.optional("endpoint")
        region = settings.text("region", DEFAULT_REGION if endpoint else None)
        if not _REGION.fullmatch(region):
            raise settings.wrong("region", "expected a region's name, such as eu-central-1")
        style = settings.choice(
            "addressing", ("virtual", "path"), "path" if endpoint else "virtual"
        )
        if style == "virtual" and "." in bucket:
            # A wildcard certificate covers one label only.
            raise settings.wrong("addressing", "expected path for a bucket with a dot in its name")
        prefix = settings.text("prefix", DEFAULT_PREFIX).strip("/")
        if not is_object_name(prefix):
            raise settings.wrong("prefix", "expected a folder's name of a-z, 0-9, /, ., _ and -")
        # The role of the machine or container, as the cloud's own tools find it.
        role = settings.choice("credentials", ("keys", "role"), "keys") == "role"
        read = cls(
            bucket=bucket,
            region=region,
            endpoint=_endpoint(settings, endpoint, region),
            virtual_hosted=style == "virtual",
            prefix=prefix,
            access_key=None if role else settings.secret("access_key"),
            secret_key=None if role else settings.secret("secret_key"),
            session_token=None if role else settings.optional_secret("session_token"),
            authority=settings.file("ca_file"),
            proxy=_proxy(settings),
            bulk_delete=settings.flag("bulk_delete", True),
            allow_versioning=settings.flag("allow_versioning", False),
            allow_retention=settings.flag("allow_retention", False),
        )
        settings.done()
        return read

    @property
    def url(self) -> str:
        """Where requests go, the bucket's own host included where it has one."""
        if not self.virtual_hosted:
            return self.endpoint
        scheme, _, host = self.endpoint.partition("://")
        return f"{scheme}://{self.bucket}.{host}"

    def client(self, context: ssl.SSLContext | None) -> Callable[[], httpx.AsyncClient]:
        """What makes the HTTP client of `check`, by the same way as obstore's.

        It trusts in the system's authorities, or `context`, and in that of `ca_file`. Raises
        ProviderError.
        """
        trust = self._trust(context)
        proxy = self.proxy.reveal() if self.proxy is not None else None
        return lambda: httpx.AsyncClient(
            verify=trust, proxy=proxy, follow_redirects=False, trust_env=False
        )

    def _trust(self, context: ssl.SSLContext | None) -> ssl.SSLContext:
        trusted = context if context is not None else ssl.create_default_context()
        if self.authority is not None:
            try:
                trusted.load_verify_locations(cadata=self.authority.decode("ascii"))
            except (ssl.SSLError, UnicodeDecodeError) as error:
                raise ProviderError("ca_file: no certificates in PEM", permanent=True) from error
        return trusted

    def _credentials(self) -> "Callable[[], S3Credential] | None":
        """What gives obstore the keys; None to have it look for the role itself."""
        if self.access_key is None or self.secret_key is None:
            return None
        credentials: S3Credential = {
            "access_key_id": self.access_key.reveal(),
            "secret_access_key": self.secret_key.reveal(),
            "expires_at": None,
        }
        if self.session_token is not None:
            credentials["token"] = self.session_token.reveal()
        return lambda: credentials

    def open(self) -> S3Store:
        """The store as obstore has it. Raises ProviderError."""
        client: dict[str, Any] = {
            "timeout": timedelta(seconds=REQUEST_TIMEOUT),
            "connect_timeout": timedelta(seconds=REQUEST_TIMEOUT / 2),
        }
        if self.authority is not None:
            client["root_certificate"] = self.authority
        if self.proxy is not None:
            client["proxy_url"] = self.proxy.reveal()
        try:
            # All that obstore would otherwise take from AWS_… variables is said here.
            return S3Store(
                self.bucket,
                prefix=self.prefix,
                region=self.region,
                endpoint=self.url,
                aws_endpoint_url_s3=self.url,
                virtual_hosted_style_request=self.virtual_hosted,
                skip_signature=False,
                s3_express=False,
                request_payer=False,
                disable_bulk_delete=not self.bulk_delete,
                credential_provider=self._credentials(),
                client_options=client,  # type: ignore[arg-type]
                retry_config={
                    "max_retries": 1,
                    "retry_timeout": timedelta(seconds=RETRY_TIMEOUT),
                },
            )
        except Exception as error:  # whatever obstore raises: no word of it, it may hold the keys
            raise ProviderError(
                f"S3 store cannot be opened: {type(error).__name__}", permanent=True
            ) from None


class S3Provider:
    """A `Provider` over one bucket, or a folder of it.

    `client` makes the HTTP client of `check` and `ready`; `clock` gives Unix seconds.
    """

    name = "s3"
    # S3 has no limit in what it signs for a PUT by URL: 5 GiB may come.
    enforces_size = False

    def __init__(
        self,
        settings: S3Settings,
        *,
        client: Callable[[], httpx.AsyncClient],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._store = settings.open()
        self._client = client
        self._clock = clock
        self._threads = trio.CapacityLimiter(THREADS)

    async def sign_put(self, name: str, *, size_limit: int, lifetime: int) -> SignedRequest:
        """A PUT that creates `name` once. S3 does not enforce `size_limit`."""
        return await self._sign("PUT", name, lifetime, PUT_HEADERS)

    async def sign_get(self, name: str, *, lifetime: int) -> SignedRequest:
        """A GET of `name`."""
        return await self._sign("GET", name, lifetime)

    async def sign_delete(self, name: str, *, lifetime: int) -> SignedRequest:
        """A DELETE of `name`."""
        return await self._sign("DELETE", name, lifetime)

    async def delete(self, names: Sequence[str]) -> None:
        """Delete these objects, 1000 in one request; missing ones are no error."""
        for name in names:
            check_object_name(name)
        if names:
            await self._in_thread(lambda: obstore.delete(self._store, list(names)))

    async def list(self, prefix: str) -> AsyncGenerator[StoredObject, None]:
        """All objects whose names begin with `prefix`; others' files among them are left out."""
        folder = prefix.rpartition("/")[0]  # obstore's prefix is a whole folder
        pieces = await self._in_thread(
            lambda: obstore.list(self._store, folder or None, chunk_size=LIST_PIECE)
        )
        while piece := await self._in_thread(lambda: next(pieces, None)):
            for found in piece:
                name = found["path"]
                if name.startswith(prefix) and is_object_name(name):
                    yield StoredObject(name, found["size"], int(found["last_modified"].timestamp()))

    async def ready(self) -> None:
        """Put, get and delete an object. Raises ProviderError."""
        async with self._client() as client:
            await alive(self, client, AnswerReader(self._clock).read)

    async def check(self) -> Sequence[Finding]:
        """Probe by signed requests and by the sweeper's own; look for what keeps deleted objects.

        Versioning and retention are read from what S3 answers to the probe, so that no right to
        look at the bucket's configuration is needed.
        """
        answers = AnswerReader(self._clock)
        async with self._client() as client:
            findings = list(await probe(self, client, answers.read))
        if not reached(findings):  # its own words would be said again of each that follows
            *before, last = findings
            advice = f"{last.advice}: see endpoint, proxy and ca_file"
            return [*before, attrs.evolve(last, advice=advice)]
        findings += await self._check_sweeping()
        if answers.seen:
            findings.append(answers.clock())
            findings.append(answers.versioning(allowed=self._settings.allow_versioning))
            findings.append(answers.retention(allowed=self._settings.allow_retention))
        return findings

    async def _check_sweeping(self) -> Sequence[Finding]:
        findings = []
        try:
            async with aclosing(self.list("probe/")) as found:
                await anext(found, None)
            findings.append(Finding("list objects", True))
        except ProviderError as error:
            findings.append(Finding("list objects", False, str(error)))
        try:
            await self.delete(["probe/none"])
            findings.append(Finding("delete objects in bulk", True))
        except ProviderError as error:
            advice = f"{error}; if the store has no DeleteObjects, set bulk_delete=false"
            findings.append(Finding("delete objects in bulk", False, advice))
        return findings

    async def _sign(
        self,
        method: Method,
        name: str,
        lifetime: int,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> SignedRequest:
        check_object_name(name)
        expires = int(self._clock()) + lifetime
        sign = partial(obstore.sign, self._store, method, name, timedelta(seconds=lifetime))
        # A role's keys are asked for over the network, now and then.
        role = self._settings.access_key is None
        url = await self._in_thread(sign) if role else self._now(sign)
        return SignedRequest(method, url, headers, expires)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        with trio.move_on_after(CALL_TIMEOUT):
            return await trio.to_thread.run_sync(
                self._now, work, abandon_on_cancel=True, limiter=self._threads
            )
        raise ProviderError(f"S3 bucket {self._settings.bucket}: no answer in {CALL_TIMEOUT:g} s")

    def _now(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except Exception as error:  # whatever obstore raises
            # Not `from error`: its words hold the request, and a log may print them.
            raise ProviderError(f"S3 bucket {self._settings.bucket}: {words_for(error)}") from None


def _proxy(settings: Settings) -> Secret | None:
    proxy = settings.optional_secret("proxy")
    if proxy is None or _is_origin(proxy.reveal(), "http", userinfo=True):
        return proxy
    # Not the value: it may hold a password.
    raise settings.wrong("proxy", "expected http://[USER:PASSWORD@]HOST:PORT")


def _endpoint(settings: Settings, given: str | None, region: str) -> str:
    """`given`, checked; or where AWS has the region."""
    if given is None:
        suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
        return f"https://s3.{region}.{suffix}"
    if not _is_origin(given, "https"):  # Routers speak nothing else to stores
        raise settings.wrong(
            "endpoint",
            "expected an https URL without bucket and path, such as https://s3.example.org",
        )
    return given.rstrip("/")


def _is_origin(url: str, scheme: str, *, userinfo: bool = False) -> bool:
    """Whether `url` is a scheme, a host and perhaps a port, and nothing more."""
    try:
        parts = urlsplit(url)
        port_holds = parts.port != 0
    except ValueError:
        return False
    return (
        parts.scheme == scheme
        and bool(parts.hostname)
        and port_holds
        and parts.path in ("", "/")
        and not parts.query
        and not parts.fragment
        and (userinfo or "@" not in parts.netloc)
    )
