"""The dead letters of a deployment: what its agents could not handle, kept in Redis.

Each partition keeps about its newest 100,000. Reading changes nothing, and all else may be done
twice.
"""

from __future__ import annotations

import time
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from actorbus.bus.transports.redis.items import ID_SIZE
from actorbus.bus.transports.redis.letters import as_mail, packed, read_message
from actorbus.bus.transports.redis.newest import newest_of
from actorbus.bus.transports.redis.ownership import CAPACITY, CAPACITY_BYTES
from actorbus.codec.signing.sealing import is_sealed
from actorbus.errors import MailboxFull, UnknownMessage, UnknownRecipient, Untrusted
from actorbus.message import IdSource, MessageId, MessageKind, format_id
from actorbus.redis_client import Script, decoded, encoded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from redis import Redis

    from actorbus.bus.transports.redis.log import InboxLog
    from actorbus.codec import Codec
    from actorbus.codec.signing import Trust
    from actorbus.message import Message
    from actorbus.redis_client import RedisServer

_PAGE: Final = 500
_HEAD: Final = 14


class StoredLetter(NamedTuple):
    """A message that was not handled. ``at``: when it was given up, in seconds of the server's
    time since the epoch; ``error`` may hold a traceback."""

    at: float
    agent: str
    level: int
    reason: str
    attempts: int
    error: str
    id: MessageId
    blob: bytes
    place: tuple[str, str]
    """Its partition, and where it lies there."""


class DeploymentLetters:
    """The dead letters of all nodes. Safe from any thread.

    What redis-py raises comes out as ``TransportUnavailable``.

    Args:
        codec: what messages are decoded with.
        trust: whom sealed messages are opened from; None opens none.
    """

    def __init__(
        self, server: RedisServer, inboxes: InboxLog, codec: Codec, trust: Trust | None = None
    ) -> None:
        self._server = server
        self._tags = inboxes.tags
        self._codec = codec
        self._trust = trust
        self._ids = IdSource()
        self._replay = Script.beside(__file__, "replay")

    def count(self) -> int:
        """How many are kept."""
        with self._server.errors():
            return sum(int(self._client.xlen(f"{tag}:dlq")) for tag in self._tags)

    def list(
        self, *, reason: str | None = None, agent: str | None = None, limit: int = 1_000
    ) -> list[StoredLetter]:
        """The newest that are meant, newest first."""
        with self._server.errors():
            newest = merge(*map(self._newest, self._tags), key=lambda one: -one.at)
            meant = (
                one for one in newest if reason in (None, one.reason) and agent in (None, one.agent)
            )
            return list(islice(meant, limit))

    def get(self, id: MessageId) -> StoredLetter:
        """The newest letter of that message.

        Raises:
            UnknownMessage: there is none.
        """
        with self._server.errors():
            for tag in self._tags:
                for letter in self._newest(tag):
                    if letter.id == id:
                        return letter
        raise UnknownMessage(
            f"no dead letter {format_id(id)}; {self.count():,} are kept,"
            " `actorbus dead-letters` lists them"
        )

    def message(self, letter: StoredLetter) -> Message[Any]:
        """What was sent, its times the server's.

        Raises:
            Undecodable, Untrusted: nobody can tell.
        """
        blob = letter.blob
        if self._trust is not None:
            blob = self._trust.open(
                letter.agent, blob, time.time(), level=letter.level, again=True
            ).blob
        return read_message(self._codec, blob, 0.0)[0]

    def requeue(self, letter: StoredLetter) -> MessageId:
        """Send the message to its agent again, under a new id whose cause is the old one.

        It is a tell then, without a deadline, and its payload as it was. A letter is sent once,
        whoever else sends it at the same time; one that could not be sent is kept. The new id.

        Raises:
            UnknownMessage: there is no such letter any more.
            UnknownRecipient: nobody has the agent's name.
            MailboxFull: its inbox has no room.
            Undecodable: it is no message.
            Untrusted: it is sealed, and would have to be sealed anew.
        """
        if is_sealed(letter.blob):
            raise Untrusted("sealed", "its sender signed it under the old id; send it from a node")
        now = self._time()
        new_id = self._ids.make(now)
        mail = self._codec.edited(
            packed(letter.blob),
            id=new_id,
            kind=MessageKind.TELL,
            recipient=letter.agent,
            created_at=now,
            deadline=None,
            causation_id=letter.id,
            attempt=1,
        )
        tag, entry = letter.place
        body = new_id.to_bytes(ID_SIZE, "big") + as_mail(mail)
        arguments = [entry, encoded(letter.agent), letter.level, CAPACITY, CAPACITY_BYTES, body]
        with self._server.errors():
            told: Any = self._replay(self._client, [tag], arguments)
        match told[0]:
            case b"OK":
                return MessageId(int.from_bytes(told[1], "big"))
            case b"NOAGENT":
                raise UnknownRecipient(letter.agent, ())
            case b"FULL":
                raise MailboxFull(letter.agent, int(told[1]))
        raise UnknownMessage(f"the dead letter {format_id(letter.id)} is not there any more")

    def discard(self, letters: Iterable[StoredLetter]) -> int:
        """Forget letters; how many were still there."""
        by_tag: dict[str, list[str]] = {}
        for letter in letters:
            tag, entry = letter.place
            by_tag.setdefault(tag, []).append(entry)
        gone = 0
        with self._server.errors():
            for tag, entries in by_tag.items():
                for start in range(0, len(entries), _PAGE):
                    some = entries[start : start + _PAGE]
                    gone += int(self._client.xdel(f"{tag}:dlq", *some))
        return gone

    @property
    def _client(self) -> Redis:
        return self._server.client

    def _time(self) -> float:
        with self._server.errors():
            seconds, micros = self._client.time()
        return float(seconds) + float(micros) / 1e6

    def _newest(self, tag: str) -> Iterator[StoredLetter]:
        """The letters of a partition, newest first."""
        for entry, fields in newest_of(self._client, f"{tag}:dlq", b"item"):
            yield _letter(tag, entry.decode(), fields)


def _letter(tag: str, entry: str, fields: dict[bytes, bytes]) -> StoredLetter:
    item = fields[b"item"]
    body = _HEAD + ID_SIZE
    return StoredLetter(
        at=int(entry.partition("-")[0]) / 1_000,
        agent=decoded(fields[b"agent"]),
        level=int(fields[b"level"]),
        reason=fields[b"reason"].decode(errors="replace"),
        attempts=int(fields[b"attempts"]),
        error=fields[b"error"].decode(errors="replace"),
        id=MessageId(int.from_bytes(item[_HEAD:body], "big")),
        blob=item[body:],
        place=(tag, entry),
    )
