"""The codec: payloads and messages into bytes and back. Read this page first."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from actorbus.codec.envelope import (
    ENVELOPE_LIMIT,
    MESSAGE_FIELDS,
    MESSAGE_VERSION,
    Envelopes,
)
from actorbus.codec.frames import (
    PAYLOAD_FIELDS,
    SMALL,
    WIRE_VERSION,
    Packers,
    check_cost,
    unpack_flat_dict,
    unpack_frame,
)
from actorbus.codec.names import KNOWN_CLASSES
from actorbus.codec.reading import Reading
from actorbus.codec.uncarried import Uncarried, where, with_article
from actorbus.codec.writing import Walk, Writers, is_plain
from actorbus.errors import PayloadTooLarge, Undecodable, UnsupportedPayload
from actorbus.message import Entry, Message, check_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.codec.type_book import TypeBook


class Codec:
    """Turns payloads and messages into bytes and back. Safe from any thread.

    `limit` is the most bytes a payload may take. `make_ref` makes a Ref of the name of an agent;
    without it a Ref arrives as that name. Whatever has a str as ``__actorbus_ref__`` is a Ref.

    Every class that is encoded is added to `types`: who sends a class knows it.
    """

    __slots__ = (
        "_agent_name",
        "_envelopes",
        "_last_was_flat",
        "_pack_frame",
        "_reading",
        "_writers",
        "limit",
        "types",
    )

    def __init__(
        self, types: TypeBook, *, limit: int, make_ref: Callable[[str], Any] | None = None
    ) -> None:
        self.types = types
        self.limit = limit
        self._agent_name = lru_cache(KNOWN_CLASSES)(partial(check_name, "an agent"))
        self._pack_frame = Packers().pack
        self._envelopes = Envelopes(
            self._pack_frame,
            agent_name=self._agent_name,
            run_name=partial(check_name, "a run"),
        )
        self._writers = Writers(types)
        self._reading = Reading(types, agent_name=self._agent_name, make_ref=make_ref)
        self._last_was_flat = False
        """Whether a payload was a dict of plain values: the next one is then, too, mostly."""

    def encode_payload(self, payload: Any) -> bytes:
        """The payload alone, in a frame of its own.

        Raises:
            UnsupportedPayload: a value that cannot be carried; the error says where it is.
            PayloadTooLarge: more bytes than the limit.
        """
        try:
            data = self._pack(payload)
        except Uncarried as error:
            raise UnsupportedPayload(f"{where(payload, error.path)}: {error.why}") from None
        except RecursionError:
            raise UnsupportedPayload(
                "the stack has no room left to pack the payload; send it from less deep a call"
            ) from None
        if len(data) > self.limit:
            raise PayloadTooLarge(len(data), self.limit)
        if len(data) > SMALL:
            self._check_cost(data)
        return data

    def _check_cost(self, data: bytes) -> None:
        try:
            check_cost(data, self.limit)
        except Undecodable as error:
            raise UnsupportedPayload(f"payload: {error}") from None

    def _pack(self, payload: Any) -> bytes:
        try:
            if payload.__class__ is dict and is_plain(payload):
                return self._pack_frame([WIRE_VERSION, payload])
            walk = Walk(self._writers, self.limit)
            return self._pack_frame([WIRE_VERSION, walk.value(payload, 0, False)])
        except (OverflowError, UnicodeEncodeError):
            walk = Walk(self._writers, self.limit, careful=True)
            return self._pack_frame([WIRE_VERSION, walk.value(payload, 0, False)])

    def decode_payload(self, data: bytes) -> Any:
        """The payload that `data` was made of, as near as the known classes allow.

        Raises:
            Undecodable: for any reason at all.
        """
        if self._last_was_flat:
            flat = unpack_flat_dict(data, self.limit)
            if flat is not None:
                return flat
        payload = unpack_frame(data, self.limit, fields=PAYLOAD_FIELDS)[1]
        self._last_was_flat = payload.__class__ is dict and is_plain(payload)
        try:
            return self._reading.open(payload, 0)
        except Undecodable:
            raise
        except Exception as error:  # noqa: BLE001 - whatever wrong arguments of a tag trip over
            raise Undecodable(f"a value cannot be rebuilt: {type(error).__name__}") from None

    def check(self, payload: Any) -> None:
        """Hold a payload that stays in memory to what every transport asks of it.

        Raises:
            UnsupportedPayload: it cannot be carried, or not be rebuilt from what is carried.
            PayloadTooLarge: more bytes than the limit.
        """
        data = self.encode_payload(payload)
        try:
            self.decode_payload(data)
        except Undecodable as error:
            raise UnsupportedPayload(
                f"{with_article(type(payload))} can be packed but not rebuilt: {error}"
            ) from None

    def encode(self, message: Entry, *, shift: float = 0.0) -> bytes:
        """A whole message. `shift` is added to its times, in seconds: another clock's lead.

        Raises:
            UnsupportedPayload: as for the payload, or for headers that are not text.
            PayloadTooLarge: more bytes than the limit.
        """
        plain = message.__class__ is tuple
        payload = self.encode_payload(message[2] if plain else message.payload)  # type: ignore[index, union-attr]
        try:
            data = self._pack_frame(self._envelopes.fields(message, payload, shift))
        except UnicodeEncodeError:
            raise UnsupportedPayload(
                "the headers hold text that is not valid Unicode (a lone surrogate)"
            ) from None
        if len(data) > len(payload) + ENVELOPE_LIMIT:
            raise UnsupportedPayload(
                f"the message takes {len(data) - len(payload):,} bytes beside its payload, the"
                f" limit is {ENVELOPE_LIMIT:,}; send less in its headers"
            )
        return data

    def edited(self, data: bytes, **changes: Any) -> bytes:
        """The message `data` with fields of its envelope changed, and its payload as it is.

        So it keeps the names of classes that this process does not know.

        Raises:
            Undecodable: for any reason at all; the payload is not looked at.
        """
        message = self.envelope(data)
        edited = message.copy(**changes)
        return self._pack_frame(self._envelopes.fields(edited, message.payload))

    def decode(self, data: bytes, *, shift: float = 0.0) -> Message[Any]:
        """The message that `data` was made of, its times less `shift`.

        A reply to it has nowhere to go yet.

        Raises:
            Undecodable: for any reason at all.
        """
        message = self.envelope(data, shift=shift)
        message.payload = self.decode_payload(message.payload)
        return message

    def envelope(self, data: bytes, *, shift: float = 0.0) -> Message[Any]:
        """``decode``, but for the payload, which is still packed.

        Raises:
            Undecodable: for any reason at all; the payload is not looked at.
        """
        frame = unpack_frame(
            data, self.limit + ENVELOPE_LIMIT, fields=MESSAGE_FIELDS, version=MESSAGE_VERSION
        )
        try:
            return self._envelopes.read(frame, shift)
        except Exception as error:  # noqa: BLE001 - whatever a wrong envelope trips over
            raise Undecodable(f"a wrong envelope: {type(error).__name__}") from None
