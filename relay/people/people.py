"""All that has to do with who may come in: persons, sign-ins, links, tokens, and delays.

Raises errors.Refused with words wherever a person is told no.
"""

import time
from collections import Counter
from collections.abc import Callable
from enum import Enum

import attrs
import structlog
import trio

from relay.database import Database
from relay.errors import Refused
from relay.people.delays import Delays
from relay.people.links import Links
from relay.people.names import check_name, key_of
from relay.people.passwords import Passwords, check_new
from relay.people.persons import Person, Persons
from relay.people.roles import Role
from relay.people.sign_ins import SignIn, SignIns
from relay.people.tokens import APIToken, APITokens

log = structlog.get_logger()

_LINK_IS_OVER = (
    "this link does not hold: it was used, it is older than a day, or a newer one was made. Ask an"
    " administrator for another, or run `relay person link` where the process runs"
)

_WRONG = "name or password is wrong"
_EARLY = "too many attempts did not hold: this one came too early"
_WRONG_PRESENT = "the present password is wrong"
_CHANGED = "this account was changed just now: sign in again"


class Act(Enum):
    """What an `Authentication` is of."""

    SIGN_IN = "sign-in"
    SIGN_OUT = "sign-out"
    PASSWORD = "password"  # chosen by its person, and not by an operation of the REST


@attrs.frozen(slots=True)
class Authentication:
    """Somebody came in, was refused, or left: for the audit (PS3.15 §A.5.3.12).

    `refused` is why not; empty where it held.
    """

    act: Act
    name: str
    address: str
    refused: str = ""


@attrs.define(slots=True, eq=False, kw_only=True)
class People:
    """Made by `load`; `close` ends its threads. `heard` is told of every sign-in and sign-out."""

    persons: Persons
    sign_ins: SignIns
    links: Links
    tokens: APITokens
    passwords: Passwords
    delays: Delays
    clock: Callable[[], float]
    heard: Callable[[Authentication], None] = lambda authentication: None
    counted: Counter[str] = attrs.field(factory=Counter)  # sign-ins by their outcome

    @classmethod
    async def load(
        cls,
        database: Database,
        *,
        passwords: Passwords | None = None,
        clock: Callable[[], float] = time.time,
    ) -> "People":
        return cls(
            persons=await Persons.load(database),
            sign_ins=await SignIns.load(database, clock),
            links=await Links.load(database, clock),
            tokens=await APITokens.load(database, clock),
            passwords=passwords or Passwords(),
            delays=Delays(trio.current_time),
            clock=clock,
        )

    def close(self) -> None:
        self.passwords.close()

    # --- coming in and leaving ------------------------------------------------------------------

    async def sign_in(self, name: str, password: str, address: str, agent: str) -> str:
        """The secret for a cookie.

        Raises Delayed (429), Busy (503), and Refused (403) for a name or password that does not
        hold: with the same words, after the same work, whichever it is.
        """
        key = key_of(name)[:256]
        try:
            self.delays.check(key, address)
        except Refused:
            self.counted["delayed"] += 1
            self._refused(name, address, _EARLY)
            raise
        self.passwords.check_room()
        # Counted before it is known: many who come at once do not all pass the check above.
        self.delays.failed(key, address)
        person = self.persons.find(name)
        kept = person.password if person is not None else None
        holds = await self.passwords.check(kept, password)
        # Nor where the password was changed, or the person removed, meanwhile.
        if not holds or person is None or kept is None or self.persons.find(name) is not person:
            self.counted["refused"] += 1
            self._refused(name, address, _WRONG)
            log.warning("sign-in refused", address=address)
            raise Refused(403, _WRONG)
        self.delays.held(key, address)
        if self.passwords.is_outdated(kept):
            anew = await self.passwords.hash(password)
            if self.persons.find(name) is person:
                person = await self.persons.change_password(name, anew)
        return await self._begin(person, address, agent)

    async def sign_out(self, sign_in: SignIn) -> None:
        await self.sign_ins.end(sign_in)
        self.heard(Authentication(Act.SIGN_OUT, sign_in.person, sign_in.address))
        log.info("signed out", person=sign_in.person)

    async def _begin(self, person: Person, address: str, agent: str) -> str:
        secret = await self.sign_ins.begin(person.name, address, agent)
        if self.persons.find(person.name) is not person:  # nor where that was changed meanwhile
            sign_in = self.sign_ins.find(secret)
            if sign_in is not None:
                await self.sign_ins.end(sign_in)
            self._refused(person.name, address, _CHANGED)
            raise Refused(403, _CHANGED)
        self.counted["held"] += 1
        self.heard(Authentication(Act.SIGN_IN, person.name, address))
        log.info("signed in", person=person.name, address=address)
        return secret

    def _refused(self, name: str, address: str, why: str) -> None:
        """Tell that somebody, by this name, did not get in: not the log, which has no bound on what
        anybody causes, again and again (relay.audit.floods)."""
        self.heard(Authentication(Act.SIGN_IN, name[:64], address, why))

    async def token(self, authorization: str, address: str) -> APIToken:
        """The API token of an Authorization header. Raises Refused (401)."""
        token = await self.tokens.find(authorization)
        if token is None:
            self._refused("API token", address, "no such API token")
            raise Refused(401, "no such API token: `relay person token add NAME` makes one")
        return token

    # --- one-time links -------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        """Whether nobody could sign in: the first administrator is still to come."""
        return not any(person.password is not None for person in self.persons)

    def first_code(self) -> str:
        """A code for the first administrator. Raises Refused (409) where there is somebody."""
        if not self.is_empty:
            raise Refused(409, "there are people already: say whom the link is for")
        return self.links.make_first()

    async def link_code(self, name: str) -> str:
        """A code by which this person chooses a password. Raises Refused (404)."""
        person = self.persons.get(name)
        code = await self.links.make(person.name)
        log.info("one-time link made", person=person.name)
        return code

    def opened_by(self, code: str) -> str:
        """Whose link it is; "" for the first administrator's. Raises Refused (403)."""
        if self.links.is_first(code) and self.is_empty:
            return ""
        person = self.links.find(code)
        if person is None:
            raise Refused(403, _LINK_IS_OVER)
        return person

    async def open(self, code: str, name: str, password: str, address: str, agent: str) -> str:
        """Use a link: its person, or the first administrator by this `name`, has this password.

        Returns the secret for a cookie. Raises Refused: 400 for the name or password, 403 for a
        link that does not hold (any more), 503.
        """
        try:
            owner = self.opened_by(code)
        except Refused:
            self._refused("one-time link", address, "the link does not hold")
            raise
        if not owner:
            name = check_name(name)
        check_new(password, owner or name)
        kept = await self.passwords.hash(password)
        if owner:
            if await self.links.take(code) is None:  # somebody was faster
                raise Refused(403, _LINK_IS_OVER)
            person = await self.persons.change_password(owner, kept)
            await self.sign_ins.end_all_of(person.name)
        else:
            if not (self.links.is_first(code) and self.is_empty):
                raise Refused(403, _LINK_IS_OVER)
            person = await self._first(name, kept)
        self.delays.held(key_of(person.name), address)
        self.heard(Authentication(Act.PASSWORD, person.name, address))
        log.info("one-time link used", person=person.name, address=address)
        return await self._begin(person, address, agent)

    async def _first(self, name: str, kept: str) -> Person:
        self.links.forget_first()
        if self.persons.find(name) is None:
            return await self.persons.add(name, Role.ADMINISTRATOR, kept, int(self.clock()))
        # Added by command before, and the link not opened yet.
        await self.persons.change_password(name, kept)
        return await self.persons.change_role(name, Role.ADMINISTRATOR)

    # --- changing people ------------------------------------------------------------------------

    async def add(self, name: str, role: Role, password: str | None = None) -> Person:
        """Raises Refused: 400, 409, 503."""
        kept = None
        if password is not None:
            check_new(password, check_name(name))
            kept = await self.passwords.hash(password)
        person = await self.persons.add(name, role, kept, int(self.clock()))
        log.info("person added", person=person.name, role=role.value)
        return person

    async def change_role(self, name: str, role: Role) -> Person:
        """The person is signed out. Raises Refused: 404, 409."""
        if self.persons.get(name).role is role:
            return self.persons.get(name)
        person = await self.persons.change_role(name, role)
        await self.sign_ins.end_all_of(person.name)
        log.info("role changed", person=person.name, role=role.value)
        return person

    async def remove(self, name: str) -> None:
        """Raises Refused: 404, 409."""
        person = await self.persons.remove(name)
        self.links.drop(person.name)
        await self.sign_ins.end_all_of(person.name)
        log.info("person removed", person=person.name)

    async def set_password(self, name: str, password: str) -> None:
        """The person is signed out everywhere. Raises Refused: 400, 404, 503."""
        person = self.persons.get(name)
        check_new(password, person.name)
        kept = await self.passwords.hash(password)
        await self.persons.change_password(person.name, kept)
        await self.sign_ins.end_all_of(person.name)
        await self.links.withdraw(person.name)
        log.info("password changed", person=person.name)

    async def change_own_password(self, sign_in: SignIn, current: str, new: str) -> None:
        """All other sign-ins of this person end. Raises Refused: 400, 403, 429, 503."""
        person = self.persons.get(sign_in.person)
        key = key_of(person.name)
        check_new(new, person.name)
        self.delays.check(key, sign_in.address)
        self.passwords.check_room()
        self.delays.failed(key, sign_in.address)  # as in `sign_in`
        if not await self.passwords.check(person.password, current):
            self._refused(person.name, sign_in.address, _WRONG_PRESENT)
            raise Refused(403, _WRONG_PRESENT)
        self.delays.held(key, sign_in.address)
        kept = await self.passwords.hash(new)
        if not self.sign_ins.holds(sign_in) or self.persons.find(person.name) is not person:
            raise Refused(403, _CHANGED)
        await self.persons.change_password(person.name, kept)
        await self.sign_ins.end_all_of(person.name, but=sign_in)
        self.heard(Authentication(Act.PASSWORD, person.name, sign_in.address))
        log.info("password changed", person=person.name)
