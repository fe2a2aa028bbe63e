"""What the commands that look at a running deployment share: which one, and how it is read."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final

import typer

from actorbus.cli import terminal
from actorbus.errors import InvalidSettings, InvalidUrl, TransportUnavailable, UnknownTransport

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from actorbus.registry.directories.redis import RedisDirectory
    from actorbus.registry.directories.redis.directory import NodeView
    from actorbus.registry.entry import AgentStatus
    from actorbus.settings import Settings

_LARGEST: Final = 1 << 20

COLOURS: Final = {"suspect": "yellow", "parked": "yellow", "dead": "red", "stopped": "red"}

Bus = Annotated[
    str,
    typer.Option(
        envvar="ACTORBUS_BUS", metavar="URL", help="The server, such as redis://host:6379/0."
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Whose nodes; by default ACTORBUS_NAMESPACE, or else actorbus."
    ),
]


@contextmanager
def deployment(bus: str, namespace: str | None) -> Iterator[tuple[RedisDirectory, Settings]]:
    """The directory of a deployment, which is only read, and the settings here.

    Without a server there, on one whose layout another version made, or with arguments that
    cannot be meant, it ends the program.
    """
    from actorbus.bus.transports.redis.deployment import partitions_of
    from actorbus.codec import Codec, TypeBook
    from actorbus.redis_client import Access, RedisServer, parsed
    from actorbus.registry.directories.redis import RedisDirectory
    from actorbus.settings import Settings

    try:
        settings = Settings() if namespace is None else Settings(namespace=namespace)
        kind, where = parsed(bus)
        server = RedisServer(where, name="actorbus-cli", access=Access.of(settings))
    except (InvalidSettings, InvalidUrl, UnknownTransport) as error:
        terminal.fail(str(error), 2)
    except TransportUnavailable as error:
        terminal.fail(str(error), 1)
    directory = RedisDirectory(
        server, Codec(TypeBook(), limit=_LARGEST), namespace=settings.namespace, bus=kind
    )
    try:
        if kind == "durable":
            partitions_of(server, settings.namespace)
        yield directory, settings
    except TransportUnavailable as error:
        terminal.fail(str(error), 1)
    finally:
        directory.close()
        server.close()


def verdicts(nodes: Iterable[NodeView], settings: Settings) -> dict[str, AgentStatus]:
    """The nodes that are suspect or dead, by the settings here."""
    from actorbus.registry.liveness import judge

    return judge({one.name: one.silence for one in nodes}, settings)
