"""What people search the queue by: whose study it is, and its accession number.

A row for each study that came by, found by keyed digests of Patient ID and Accession Number, with
all that is said of the patient sealed under a key that comes from the spool key: without it the
rows show no more than the queue itself, that there is a study. Losing a row loses a person a search
and nothing else, so it is written behind the sender's back, some at a time, and no object ever
waits for it.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import apsw
import attrs
import structlog
import trio
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.database import Database
from relay.errors import DatabaseError
from relay.spool.vault import SpoolKey

log = structlog.get_logger()

INDEX_SCHEMA = """
    -- What people search by: digests and a sealed text, under a key that comes from the spool key.
    CREATE TABLE study (
        uid TEXT PRIMARY KEY,
        patient BLOB NOT NULL,
        accession BLOB NOT NULL,
        sealed BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX study_patient ON study (patient) WHERE patient <> x'';
    CREATE INDEX study_accession ON study (accession) WHERE accession <> x'';
    """

# Between two writes of what is new, in seconds: a person who searches for what was just sent waits
# no longer, and a transaction that syncs the disk is rare beside those of the objects.
PAUSE = 2.0

# What has no objects any more is forgotten then.
TIDYING = 3600.0

# New studies that wait to be written. A hospital has some dozens an hour; what comes beyond is
# noted with the next object of its study.
MAXIMUM_PENDING = 4096

# Studies that are known to be noted already: those of some days.
MAXIMUM_KNOWN = 16384

# Studies of one answer: what fits a few screens.
MAXIMUM_FOUND = 200

_SEALING = b"relay study index, sealing 1"
_PATIENT = b"relay study index, Patient ID 1"
_ACCESSION = b"relay study index, Accession Number 1"
_NONCE_SIZE = 12
_DIGEST_SIZE = 16


@attrs.frozen(slots=True, kw_only=True)
class Study:
    """What the beginning of a data set says of its study, as text; what it leaves out is empty."""

    uid: str
    patient_id: str = attrs.field(default="", repr=False)
    patient_name: str = attrs.field(default="", repr=False)
    accession: str = attrs.field(default="", repr=False)
    date: str = ""
    modality: str = ""
    description: str = attrs.field(default="", repr=False)

    def to_json(self) -> dict[str, Any]:
        """For the people of this hospital who may see it."""
        return attrs.asdict(self)


class StudyIndex:
    """The studies of a spool, in its database, under `key`. `run` writes what is noted."""

    def __init__(self, database: Database, key: SpoolKey) -> None:
        self._database = database
        self._sealing = AESGCM(_derived(key, _SEALING))
        self._patient = _derived(key, _PATIENT)
        self._accession = _derived(key, _ACCESSION)
        self._known: set[str] = set()
        self._pending: dict[str, Study] = {}

    def note(self, uid: str, read: Callable[[], Study]) -> None:
        """An object of the study `uid` has come, of which `read` tells more: asked once.

        From any thread.
        """
        if not uid or uid in self._known or len(self._pending) >= MAXIMUM_PENDING:
            return
        if len(self._known) >= MAXIMUM_KNOWN:
            self._known.clear()  # those that go on are written once more
        self._known.add(uid)
        self._pending[uid] = read()

    async def run(self) -> None:
        """Write what is noted, and forget what has no objects any more, for ever."""
        tidied = trio.current_time()
        while True:
            await trio.sleep(PAUSE)
            try:
                await self.write()
                if trio.current_time() - tidied >= TIDYING:
                    tidied = trio.current_time()
                    await self._tidy()
            except DatabaseError as error:
                log.error("study index not written", why=str(error))

    async def write(self) -> None:
        """Write what was noted. Raises DatabaseError; it is tried again with the next."""
        pending = list(self._pending.items())
        if not pending:
            return
        rows = [self._row(study) for _, study in pending]
        await self._database.run(
            lambda connection: connection.executemany(
                "INSERT OR REPLACE INTO study (uid, patient, accession, sealed)"
                " VALUES (?, ?, ?, ?)",
                rows,
            )
        )
        for uid, study in pending:
            # Another writes, too: who searches does not wait for the next time. And the study may
            # have been noted anew meanwhile.
            if self._pending.get(uid) is study:
                del self._pending[uid]

    async def find(self, *, patient_id: str = "", accession: str = "") -> list[Study]:
        """The studies of exactly this patient and accession number, those that came last first.

        An empty one is any; both empty find nothing.
        """
        await self.write()
        where = {}
        if patient_id.strip():
            where["patient"] = _digest(self._patient, patient_id)
        if accession.strip():
            where["accession"] = _digest(self._accession, accession)
        if not where:
            return []
        terms = " AND ".join(f"study.{column} = ?" for column in where)
        return await self._select(
            f"SELECT uid, sealed FROM study WHERE {terms} ORDER BY"
            " (SELECT max(number) FROM item WHERE item.study = study.uid) DESC LIMIT ?",
            (*where.values(), MAXIMUM_FOUND),
        )

    async def studies(self, uids: Collection[str]) -> list[Study]:
        """What is known of these studies, at most MAXIMUM_FOUND."""
        await self.write()
        asked = list(uids)[:MAXIMUM_FOUND]
        marks = ", ".join("?" * len(asked))
        return await self._select(f"SELECT uid, sealed FROM study WHERE uid IN ({marks})", asked)

    async def _select(self, statement: str, values: Sequence[Any]) -> list[Study]:
        rows: list[Any] = await self._database.run(
            lambda connection: connection.execute(statement, values).fetchall()
        )
        opened = (self._opened(uid, sealed) for uid, sealed in rows)
        return [study for study in opened if study is not None]

    async def _tidy(self) -> None:
        await self._database.run(partial(_forget))
        self._known.clear()

    def _row(self, study: Study) -> tuple[str, bytes, bytes, bytes]:
        nonce = secrets.token_bytes(_NONCE_SIZE)
        text = json.dumps(study.to_json()).encode()
        sealed = nonce + self._sealing.encrypt(nonce, text, study.uid.encode())
        return (
            study.uid,
            _digest(self._patient, study.patient_id),
            _digest(self._accession, study.accession),
            sealed,
        )

    def _opened(self, uid: str, sealed: bytes) -> Study | None:
        """None for one that another spool key has sealed."""
        try:
            text = self._sealing.decrypt(sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:], uid.encode())
        except (InvalidTag, ValueError):
            return None
        return Study(**json.loads(text))


def _derived(key: SpoolKey, label: bytes) -> bytes:
    """A key for one purpose: the spool key is one of 32 random bytes, so that one HMAC of it is a
    key of its own."""
    return hmac.digest(key.secret, label, "sha256")


def _digest(key: bytes, value: str) -> bytes:
    """What a row is found by; empty for an empty value. Case does not matter to a person."""
    text = value.strip().upper()
    return hmac.new(key, text.encode(), hashlib.sha256).digest()[:_DIGEST_SIZE] if text else b""


def _forget(connection: apsw.Connection) -> None:
    connection.execute(
        "DELETE FROM study WHERE NOT EXISTS (SELECT 1 FROM item WHERE item.study = study.uid)"
    )
