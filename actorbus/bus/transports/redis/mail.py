"""Between messages in this process and what lies in Redis: packed, sealed, in the server's time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from actorbus.bus.transports.redis.letters import (
    UnreadablePayload,
    check_claims,
    pack_message,
    read_envelope,
    read_message,
    read_note,
)
from actorbus.bus.transports.redis.topics.log import TOPICS, event
from actorbus.codec.signing.sealing import NODE_HEADER, is_sealed, read_seal, vouched
from actorbus.errors import Undecodable

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.bus.transports.redis.items import Item
    from actorbus.bus.transports.redis.letters import Note
    from actorbus.bus.transports.redis.log import InboxLog
    from actorbus.bus.transports.redis.topics.log import Entry
    from actorbus.codec import Codec
    from actorbus.codec.signing import Trust
    from actorbus.message import Message, MessageId, PlainEntry

    _Read = Callable[[Codec, bytes, float], tuple[Message[Any], str | None]]

_LONGEST_NODE: Final = 160
"""Bytes: a name, and what each start of a node adds to it."""


class Mail:
    """Packs and opens for one node.

    Args:
        trust: what seals and opens; None where nobody signs.
    """

    def __init__(self, log: InboxLog, codec: Codec, trust: Trust | None) -> None:
        self._log = log
        self.codec = codec
        self.trust = trust
        self.offset = 0.0
        """Node time less our monotonic clock, in seconds."""

    def server_time(self) -> float:
        """In seconds."""
        return time.monotonic() + self._log.server_ahead

    def pack_plainly(self, entry: PlainEntry) -> bytes | None:
        """What ``pack`` makes of a tell for the inbox of its recipient; None: take that instead.

        Raises:
            UnsupportedPayload, PayloadTooLarge: it cannot be carried.
        """
        if self.trust is not None:
            return None
        return pack_message(self.codec, entry, self._shift(), None)

    def pack(
        self, message: Message[Any], agent: str, asker: str | None, delay: float | None = None
    ) -> bytes:
        """A message for the inbox of `agent`, answered to node `asker`.

        Raises:
            UnsupportedPayload, PayloadTooLarge: it cannot be carried.
        """
        blob = pack_message(self.codec, message, self._shift(), asker)
        return self.seal(agent, blob, level=message.priority, delay=delay or 0.0)

    def pack_event(self, message: Message[Any]) -> tuple[str, bytes]:
        """The inbox that stands for the log of topics, and a broadcast or an event for it.

        Raises:
            UnsupportedPayload, PayloadTooLarge: it cannot be carried.
        """
        blob = self.pack(message, TOPICS, None)
        return event(message.topic, message.sender, blob)

    def seal(self, inbox: str, blob: bytes, *, level: int, delay: float = 0.0) -> bytes:
        if self.trust is None:
            return blob
        return self.trust.seal(inbox, blob, self.server_time(), level=level, delay=delay)

    def opened(
        self, inbox: str, item: Item, now: int, *, again: bool = False
    ) -> tuple[Message[Any], str | None]:
        """The message in an item, and the node that asks. `now`: server time, milliseconds.

        `again`: it was opened before, or it will be, and this does not count.

        Raises:
            UnreadablePayload: but for its payload it is sound, and lies under its own id.
            Undecodable, Untrusted: it is no message, or nobody who is trusted vouches for it.
        """
        if self.trust is None:
            try:
                message, asker = read_message(self.codec, item.blob, self._shift())
            except UnreadablePayload as error:
                error.message = _named(error.message, None)
                raise error.under(item.id) from None
            return (_named(message, None) if message._headers else message), asker
        return self._opened_by(read_message, inbox, item, now, again=again)

    def unopened(self, inbox: str, item: Item, now: int) -> tuple[Message[Any], str | None]:
        """``opened``, but for the payload, which is still packed: whoever unpacks it may die.

        Raises:
            Undecodable, Untrusted: as for ``opened``.
        """
        return self._opened_by(read_envelope, inbox, item, now)

    def opened_event(self, entry: Entry) -> Message[Any]:
        """The message in an entry of the log of topics.

        Raises:
            UnreadablePayload, Undecodable, Untrusted: as for ``opened``.
        """
        node, blob = self._unsealed(TOPICS, entry.blob, self.server_time(), entry.level)
        try:
            message, _ = read_message(self.codec, blob, self._shift())
        except UnreadablePayload as error:
            error.message = _named(error.message, node)
            raise error.under(entry.id) from None
        if (message.topic, message.sender) != (entry.topic, entry.sender):
            raise Undecodable("an event that lies under another topic, or another's name")
        return _named(message, node)

    def opened_note(
        self, inbox: str, item: Item, now: int, agent_of: Callable[[MessageId], str]
    ) -> Note:
        """What another node tells this one.

        Raises:
            Undecodable, Untrusted: as for ``opened``.
        """
        _, blob = self._unsealed(inbox, item.blob, now / 1_000, item.level)
        return read_note(self.codec, blob, agent_of)

    def asked(self, item: Item) -> tuple[MessageId, str] | None:
        """The request that an item says it is and the node that it names: nobody vouches for it."""
        try:
            blob = read_seal(item.blob).blob if is_sealed(item.blob) else item.blob
            message, asker = read_envelope(self.codec, blob, self._shift())
        except Undecodable:
            return None
        if asker is None or len(asker.encode()) > _LONGEST_NODE:
            return None
        return message.id, asker

    @property
    def signs(self) -> bool:
        """Whether what goes out is sealed."""
        return self.trust is not None and self.trust.signer is not None

    def _opened_by(
        self, read: _Read, inbox: str, item: Item, now: int, *, again: bool = False
    ) -> tuple[Message[Any], str | None]:
        node, blob = self._unsealed(inbox, item.blob, now / 1_000, item.level, again=again)
        try:
            message, asker = read(self.codec, blob, self._shift())
        except UnreadablePayload as error:
            if node is not None:
                check_claims(error.message, error.asker, node, item)
            error.message = _named(error.message, node)
            raise error.under(item.id) from None
        if node is not None:
            check_claims(message, asker, node, item)
        return _named(message, node), asker

    def _unsealed(
        self, inbox: str, blob: bytes, now: float, level: int, *, again: bool = False
    ) -> tuple[str | None, bytes]:
        """The node that vouches for it, and what it vouches for."""
        if self.trust is None:
            return None, blob
        return self.trust.open(inbox, blob, now, level=level, again=again)

    def _shift(self) -> float:
        """The server's time less node time, in seconds."""
        return self._log.server_ahead - self.offset


def _named(message: Message[Any], node: str | None) -> Message[Any]:
    if node is not None or NODE_HEADER in message.headers:
        return vouched(message, node)
    return message
