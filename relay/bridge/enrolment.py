"""Invitations, and how a Router comes into the network with one.

The name in the directory is the invitation's: what a Router calls itself counts for nothing, or the
guest of one hospital could pass as another.
"""

import secrets
import shlex
from collections.abc import Callable
from typing import Any

import apsw
import attrs

from relay.bridge.schema import Network
from relay.database import Database
from relay.errors import IdentityError, Refused
from relay.identity import Identity, KeyStatement, fingerprint
from relay.invitation import Invitation, InvitationInquiry, ReceivedEnrolmentRequest
from relay.signalling.hub import RouterRow

DEFAULT_LIFETIME = 3 * 24 * 3600  # seconds: over a weekend
MINIMUM_LIFETIME = 60
MAXIMUM_LIFETIME = 30 * 24 * 3600
# An answer may get lost: within this time the same Router may ask again. Then the code is erased.
RETRY_WINDOW = 3600
# People make these by hand; a script gone wild stops here.
MAXIMUM_INVITATIONS = 1000
MAXIMUM_NAME = 64


@attrs.frozen(slots=True)
class Enrolled:
    """The answer to send, and the Router's row of the directory."""

    answer: bytes
    router: RouterRow


class Enrolment:
    """Makes invitations and lets in whoever holds one. `clock` gives Unix seconds."""

    def __init__(
        self,
        database: Database,
        identity: Identity,
        network: Network,
        *,
        url: str,
        clock: Callable[[], float],
    ) -> None:
        self._database = database
        self._identity = identity
        self._network = network
        self._url = url
        self._clock = clock

    async def invite(self, name: str, lifetime: int = DEFAULT_LIFETIME) -> Invitation:
        """A new invitation for one Router, to be called `name`, valid for `lifetime` seconds.

        Raises Refused (400) for a bad name or lifetime, (409) for a name that is another's, (429)
        where too many are open.
        """
        name = name.strip()
        if not 0 < len(name) <= MAXIMUM_NAME or not name.isprintable():
            raise Refused(400, f"name: expected 1 to {MAXIMUM_NAME} printable characters")
        if not MINIMUM_LIFETIME <= lifetime <= MAXIMUM_LIFETIME:
            raise Refused(
                400, f"lifetime: expected {MINIMUM_LIFETIME} to {MAXIMUM_LIFETIME} seconds"
            )
        now = int(self._clock())
        invitation = Invitation(
            url=self._url,
            network=self._network.network,
            invitation_id=secrets.token_bytes(16),
            bridge=self._identity.public,
            code=secrets.token_bytes(16),
            expires=now + lifetime,
        )

        def write(db: apsw.Connection) -> None:
            _erase(db, now)
            _check_free(db, name, now)
            open_now = db.execute("SELECT count(*) FROM invitation WHERE used IS NULL").get
            if open_now >= MAXIMUM_INVITATIONS:
                raise Refused(429, f"{open_now} invitations are open: let some expire")
            db.execute(
                "INSERT INTO invitation (id, name, code, created, expires) VALUES (?, ?, ?, ?, ?)",
                (invitation.invitation_id, name, invitation.code, now, invitation.expires),
            )

        await self._database.run(write)
        return invitation

    async def enrol(self, data: bytes) -> Enrolled:
        """Let in the Router whose request this is.

        Raises IdentityError if it does not hold, Refused (403) if the invitation is unknown,
        expired or used by another Router, or the Router was revoked, (409) if the name has become
        another Router's since the invitation was used.
        """
        received = ReceivedEnrolmentRequest.parse(data)
        now = int(self._clock())

        def write(db: apsw.Connection) -> Enrolled:
            request = received.request
            _erase(db, now)
            row = db.execute(
                "SELECT name, code, router FROM invitation WHERE id = ?", (request.invitation_id,)
            ).fetchone()
            if row is None or row[1] is None or row[2] not in (None, request.router):
                raise _not_open()
            name, code, _ = row
            key = received.verify(self._network.network, code, self._identity.public)
            _let_in(db, request.router, name, request.key_statement, key, now)
            db.execute(
                "UPDATE invitation SET used = ifnull(used, ?), router = ? WHERE id = ?",
                (now, request.router, request.invitation_id),
            )
            [router] = db.execute(
                "SELECT identity, name, key_statement FROM router WHERE identity = ?",
                (request.router,),
            )
            return Enrolled(received.answer(self._identity, code, name), router)

        return await self._database.run(write)

    async def inquire(self, data: bytes) -> dict[str, Any]:
        """For whom and until when (Unix seconds) the invitation is open that is asked about.

        Raises Refused (403) if it is unknown, expired or used, IdentityError if who asks does not
        know its code.
        """
        inquiry = InvitationInquiry.unpack(data)
        now = int(self._clock())

        def read(db: apsw.Connection) -> dict[str, Any]:
            _erase(db, now)
            row = db.execute(
                "SELECT name, code, expires FROM invitation WHERE id = ? AND used IS NULL",
                (inquiry.invitation_id,),
            ).fetchone()
            if row is None or row[1] is None:
                raise _not_open()
            name, code, expires = row
            inquiry.verify(self._network.network, code, self._identity.public)
            return {"name": name, "expires": expires}

        return await self._database.run(read)

    async def withdraw(self, invitation: str) -> None:
        """Take back the invitation of this id (hex): it lets nobody in any more, and is forgotten.

        Raises Refused (404) if there is none, (409) if it was used: then its Router is to be
        revoked.
        """
        try:
            invitation_id = bytes.fromhex(invitation)
        except ValueError:
            raise Refused(404, "no such invitation") from None

        def write(db: apsw.Connection) -> None:
            row = db.execute(
                "SELECT used, name FROM invitation WHERE id = ?", (invitation_id,)
            ).fetchone()
            if row is None:
                raise Refused(404, "no such invitation")
            if row[0] is not None:
                raise Refused(
                    409, f"the invitation of {row[1]} was used: revoke its Router to shut it out"
                )
            db.execute("DELETE FROM invitation WHERE id = ?", (invitation_id,))

        await self._database.run(write)

    async def list_invitations(self) -> list[dict[str, Any]]:
        """Every invitation, without its code."""
        now = int(self._clock())

        def read(db: apsw.Connection) -> list[tuple[Any, ...]]:
            _erase(db, now)
            return list(
                db.execute(
                    "SELECT id, name, created, expires, used, router FROM invitation"
                    " ORDER BY created DESC, id"
                )
            )

        return [
            {
                "id": invitation_id.hex(),
                "name": name,
                "created": created,
                "expires": expires,
                "state": "used" if used else "expired" if expires <= now else "open",
                "router": fingerprint(router) if router else None,
            }
            for invitation_id, name, created, expires, used, router in await self._database.run(
                read
            )
        ]


def _not_open() -> Refused:
    # One answer for all three, so that a stranger learns nothing.
    return Refused(403, "the invitation is unknown, expired or used: ask for a new one")


def _let_in(
    db: apsw.Connection,
    router: bytes,
    name: str,
    statement: bytes,
    key: KeyStatement,
    now: int,
) -> None:
    held = db.execute("SELECT revoked FROM router WHERE identity = ?", (router,)).fetchone()
    if held is not None and held[0] is not None:
        raise Refused(403, "this Router was revoked: it needs a new identity and a new invitation")
    if _named(db, name) not in (None, router):
        raise Refused(
            409, f"another Router is enrolled as {name!r} by now: ask for a new invitation"
        )
    newest = db.execute(
        "SELECT serial FROM serial WHERE owner = ? AND subject = ''", (router,)
    ).fetchone()
    if newest is not None and key.serial < newest[0]:
        raise IdentityError("enrolment-request: a newer HPKE key of this Router is known here")
    db.execute(
        "INSERT INTO router (identity, name, key_statement, enrolled)"
        " VALUES (?, ?, ?, ?) ON CONFLICT (identity) DO UPDATE"
        " SET name = excluded.name, key_statement = excluded.key_statement",
        (router, name, statement, now),
    )
    db.execute("INSERT OR REPLACE INTO serial VALUES (?, '', ?)", (router, key.serial))


def _check_free(db: apsw.Connection, name: str, now: int) -> None:
    """Raise Refused (409) if a Router has this name, or an open invitation gives it away."""
    holder = _named(db, name)
    if holder is not None:
        raise Refused(
            409,
            f"name: a Router is enrolled as {name!r} ({fingerprint(holder)}): choose another name,"
            " or `relay router revoke` that one first",
        )
    for (invited,) in db.execute(
        "SELECT name FROM invitation WHERE used IS NULL AND expires > ?", (now,)
    ):
        if _same(invited, name):
            raise Refused(
                409,
                f"name: an invitation for {invited!r} is open still: use that one, or take it back"
                f" (`relay invitation revoke {shlex.quote(invited)}`, or the page of Routers) if"
                " its string is lost, or choose another name",
            )


def _named(db: apsw.Connection, name: str) -> bytes | None:
    """The Router that is enrolled under this name and not revoked."""
    rows = db.execute("SELECT identity, name FROM router WHERE revoked IS NULL")
    return next((identity for identity, held in rows if _same(held, name)), None)


def _same(one: str, other: str) -> bool:
    """Whether people would read both as one name."""
    return one.strip().casefold() == other.strip().casefold()


def _erase(db: apsw.Connection, now: int) -> None:
    """Erase the codes that have no further use."""
    db.execute(
        "UPDATE invitation SET code = NULL WHERE code IS NOT NULL AND (expires <= ? OR used <= ?)",
        (now, now - RETRY_WINDOW),
    )
