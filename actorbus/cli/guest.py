"""A running deployment, as commands reach it: read in place, or through a node that is a guest."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from actorbus.cli import terminal
from actorbus.errors import (
    ActorbusError,
    InvalidArgument,
    InvalidOperation,
    InvalidSettings,
    InvalidUrl,
    MessageExpired,
    PayloadTooLarge,
    TransportUnavailable,
    UnknownTransport,
    UnsupportedPayload,
)
from actorbus.message import GUEST_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from actorbus import Node
    from actorbus.bus.middleware import Handle, Middleware, Outcome
    from actorbus.bus.transports.redis.log import InboxLog
    from actorbus.codec import Codec
    from actorbus.codec.signing import Trust
    from actorbus.message import Message
    from actorbus.redis_client import RedisServer
    from actorbus.registry.directories.redis import RedisDirectory
    from actorbus.registry.directory import DirectoryChange
    from actorbus.registry.entry import Entry
    from actorbus.settings import Settings

_LAST_GRACE: Final = 2.0
"""Seconds that a guest takes to say good-bye."""
_USAGE: Final = (
    InvalidArgument,
    InvalidOperation,
    InvalidSettings,
    InvalidUrl,
    MessageExpired,
    PayloadTooLarge,
    UnknownTransport,
    UnsupportedPayload,
)
"""What the user wrote, and cannot be meant; all else is the deployment's."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment on Redis that is there. ``codec`` knows no classes: objects come as dicts."""

    server: RedisServer
    settings: Settings
    log: InboxLog
    codec: Codec
    durable: bool
    """Whether it keeps messages; over `redis+pubsub` there is no log to look at."""

    @property
    def trust(self) -> Trust | None:
        """Whom sealed messages are opened from, where the settings name keys."""
        return _trust(self.settings)


@contextmanager
def failures_told() -> Iterator[None]:
    """What actorbus raises inside ends the program with a sentence, and 1 or 2."""
    try:
        yield
    except ActorbusError as error:
        terminal.fail(str(error), code_of(error))


def code_of(error: ActorbusError) -> int:
    return 2 if isinstance(error, _USAGE) else 1


@contextmanager
def reached(bus: str, namespace: str | None, *, durable: bool = True) -> Iterator[Deployment]:
    """The deployment, which must be there already; nothing is written.

    Without it, or with arguments that cannot be meant, it ends the program. `durable`: one over
    `redis+pubsub` will not do.
    """
    from actorbus.bus.transports.redis.deployment import partitions_of
    from actorbus.bus.transports.redis.log import InboxLog
    from actorbus.codec import Codec, TypeBook
    from actorbus.redis_client import Access, RedisServer, parsed
    from actorbus.settings import Settings

    with failures_told():
        settings = Settings() if namespace is None else Settings(namespace=namespace)
        kind, where = parsed(bus)
        if durable and kind != "durable":
            raise InvalidArgument("a bus", bus, "over plain pub/sub nothing is kept to be shown")
        server = RedisServer(where, name="actorbus-cli", access=Access.of(settings))
        try:
            partitions = partitions_of(server, settings.namespace) if kind == "durable" else 1
            if partitions is None:
                raise TransportUnavailable(
                    f"{server.shown} holds no bus {settings.namespace!r}: no node has run there."
                    " `actorbus node` starts one; --namespace names another"
                )
            yield Deployment(
                server,
                settings,
                InboxLog(server, namespace=settings.namespace, partitions=partitions),
                Codec(TypeBook(), limit=settings.payload_limit),
                kind == "durable",
            )
        finally:
            server.close()


@contextmanager
def guest(
    bus: str, namespace: str | None, name: str | None = None, *, sends: bool = True
) -> Iterator[Node]:
    """A node for as long as one command runs: in no list of nodes, and owner of no agent.

    It keeps no history: what it sends is recorded where it is handled. One that `sends` nothing
    needs no key, and takes no notice of that of the node whose settings it finds itself among.
    """
    from actorbus import Node
    from actorbus.bus.middleware import Send
    from actorbus.codec import Codec, TypeBook
    from actorbus.node.arguments import transport_of

    with reached(bus, namespace, durable=False) as deployment, failures_told():
        unsigned = {} if sends else {"signing_key": None, "trusted_keys": None}
        settings = deployment.settings.model_copy(update={"log_level": "off", **unsigned})
        if settings.signing_key is not None and name is None:
            why = "ACTORBUS_SIGNING_KEY is set; --as NODE says whose key that is"
            raise InvalidArgument("a sender", "nobody", why)
        codec = Codec(TypeBook(), limit=settings.payload_limit)
        called = name or f"cli-{os.urandom(4).hex()}"
        transport: Any = transport_of(bus, name=called, settings=settings, make_codec=lambda: codec)
        directory, store = transport.shared["directory"], transport.shared["store"]
        transport.shared["directory"] = _Onlooker(directory)
        marks = Send(_of_guest(called))
        node = Node(transport, name=called, settings=settings, middleware=[marks])
        try:
            yield node.start()
        finally:
            directory.close()
            store.close()
            node.stop(_LAST_GRACE)


def _of_guest(name: str) -> Middleware:
    def marked(handle: Handle) -> Handle:
        def handle_marked(message: Message[Any]) -> Outcome:
            return handle(message.copy(headers={**message.headers, GUEST_HEADER: name}))

        return handle_marked

    return marked


class _Onlooker:
    """The directory for a node that is not in it: it sees the others, and they do not see it."""

    def __init__(self, directory: RedisDirectory) -> None:
        self._directory = directory

    @property
    def load_age(self) -> float:
        return self._directory.load_age

    def join(self, node: str) -> Mapping[str, float]:
        self._directory.look()
        return self.beat(node)

    def beat(self, node: str) -> Mapping[str, float]:
        return {one.name: one.silence for one in self._directory.nodes()}

    def leave(self, node: str) -> None: ...

    def register(self, entry: Entry) -> None: ...

    def unregister(self, name: str, node: str) -> None: ...

    def get(self, name: str) -> Entry | None:
        return self._directory.get(name)

    def members(self, capability: str | None = None) -> Sequence[Entry]:
        return self._directory.members(capability)

    def listen(self, listener: Callable[[DirectoryChange], None]) -> Callable[[], None]:
        return self._directory.listen(listener)


def _trust(settings: Settings) -> Trust | None:
    if settings.trusted_keys is None and settings.signing_key is None:
        return None
    from pathlib import Path

    from actorbus.codec import ENVELOPE_LIMIT
    from actorbus.codec.signing import Trust
    from actorbus.codec.signing.keys import trusted_keys
    from actorbus.codec.signing.sealing import Verifier

    limit = settings.payload_limit + ENVELOPE_LIMIT
    if settings.trusted_keys is None:
        return Trust(limit)
    known = trusted_keys(Path(settings.trusted_keys))
    return Trust(limit, None, Verifier(known, limit=limit, namespace=settings.namespace))
