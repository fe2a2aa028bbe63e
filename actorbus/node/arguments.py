"""What ``Node(...)`` is given, checked and made into what the node is built of."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from actorbus.bus.transports.memory import MemoryTransport
from actorbus.errors import AuditUnavailable, InvalidSettings, UnknownTransport

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from actorbus.bus.mailbox import Inbox, MailboxPolicy
    from actorbus.bus.transport import Transport
    from actorbus.bus.transports.redis.transport import RedisTransport
    from actorbus.bus.waiting import Hearing
    from actorbus.codec import Codec
    from actorbus.codec.signing import Trust
    from actorbus.context.stores.redis import Fence
    from actorbus.persistence.audit import Audit
    from actorbus.settings import Settings


def checked_settings(settings: Settings | None, check_payloads: bool | None) -> Settings:
    from actorbus.settings import Settings

    if settings is None:
        settings = Settings()
    elif not isinstance(settings, Settings):
        raise InvalidSettings(f"settings is a Settings(...), not {settings!r}")
    if check_payloads is not None:
        settings = settings.model_copy(update={"check_payloads": check_payloads})
    return settings


@runtime_checkable
class HeardInTurns(Protocol):
    """A transport that threads which wait for what it brings can hear themselves."""

    @property
    def hearing(self) -> Hearing | None:
        """What comes, once it is open; None: only its own threads hear it."""


@runtime_checkable
class RunsElsewhere(Protocol):
    """A transport whose agents can move between nodes."""

    crew: Any
    codec: Any

    def offer(self, name: str, policy: MailboxPolicy, spec: bytes) -> None:
        """Let others send to an agent that some node can make once it is needed."""

    def comes_back(self, name: str) -> bool:
        """Whether an agent that runs nowhere will run again."""

    def muster(self, loaded: str, apart: float) -> tuple[int, int]:
        """This node's place, from 0, among those that start with it, and how many they are."""

    def nobodys(self, names: list[str]) -> set[str]:
        """Those of them that no node has."""

    def parked(self, inbox: Inbox) -> None:
        """The agent with that mailbox handles nothing for now."""


def transport_of(
    bus: object, *, name: str, settings: Settings, make_codec: Callable[[], Codec]
) -> Transport:
    if isinstance(bus, str) and bus.startswith("memory:"):
        return MemoryTransport()
    from actorbus.redis_client.urls import BUS_SCHEMES

    if isinstance(bus, str):
        scheme = bus.split(":", 1)[0].lower()
        if scheme not in BUS_SCHEMES:
            raise UnknownTransport(bus, ("memory", *BUS_SCHEMES))
        return _redis_transport(bus, name, settings, make_codec())
    if not all(hasattr(bus, name) for name in ("attach", "route", "audience", "guarantees")):
        raise UnknownTransport(bus, ("memory", *BUS_SCHEMES))
    return bus  # type: ignore[return-value]


def _redis_transport(url: str, name: str, settings: Settings, codec: Codec) -> Transport:
    from actorbus import __version__
    from actorbus.bus.transports.pubsub import PubSubTransport
    from actorbus.bus.transports.redis.deployment import PARTITIONS
    from actorbus.bus.transports.redis.transport import RedisTransport
    from actorbus.context.stores.redis import RedisStore
    from actorbus.redis_client import Access, RedisServer, parsed
    from actorbus.registry.directories.redis import RedisDirectory

    kind, where = parsed(url)
    server = RedisServer(where, name=f"actorbus-{name}", access=Access.of(settings))
    transport: PubSubTransport | RedisTransport
    if kind == "pubsub":
        transport = PubSubTransport(
            server,
            codec,
            namespace=settings.namespace,
            beat=settings.beat,
            dead_after=settings.dead_after,
        )
        fence = None
    else:
        transport = RedisTransport(
            server,
            codec,
            name=name,
            namespace=settings.namespace,
            partitions=PARTITIONS[server.kind],
            trust=_trust(name, settings),
            ttl=settings.dead_after,
            send_timeout=settings.send_timeout,
        )
        fence = partial(_fence, transport)
    transport.shared["directory"] = RedisDirectory(
        server,
        codec,
        namespace=settings.namespace,
        bus=kind,
        dead_after=settings.dead_after,
        incarnation=transport.node,
        version=__version__,
        names_held=kind == "durable",
    )
    transport.shared["store"] = RedisStore(
        server,
        codec,
        namespace=settings.namespace,
        partitions=PARTITIONS[server.kind],
        history=settings.context_history,
        log=settings.context_log,
        fence=fence,
    )
    return transport


def _fence(transport: RedisTransport, agent: str) -> Fence | None:
    """By what a node owns an agent, as the store checks it."""
    from actorbus.context.stores.redis import Fence
    from actorbus.redis_client import encoded

    token = transport.token(agent)
    log = transport.log
    return None if token is None else Fence(f"{log.tag(agent)}:a:{encoded(agent)}", token)


def _trust(name: str, settings: Settings) -> Trust | None:
    """Whom messages are sealed for and opened from; None if nobody asked for it."""
    if settings.signing_key is None and settings.trusted_keys is None:
        return None
    from actorbus.codec import ENVELOPE_LIMIT
    from actorbus.codec.signing import Trust

    return Trust.of(
        name,
        limit=settings.payload_limit + ENVELOPE_LIMIT + 256,
        signing_key=_path(settings.signing_key),
        trusted=_path(settings.trusted_keys),
        namespace=settings.namespace,
        window=settings.replay_window,
    )


def _path(name: str | None) -> Path | None:
    from pathlib import Path

    return None if name is None else Path(name)


def bound_audit(audit: str | Audit | None, settings: Settings) -> Audit | None:
    if audit is None:
        return None
    from actorbus.persistence.audit import Audit

    if isinstance(audit, str):
        from actorbus.persistence.anchors import place_of
        from actorbus.persistence.masking import kinds_of

        audit = Audit(
            audit,
            mask=kinds_of(settings.audit_mask),
            anchors=place_of(settings.audit_anchors),
            signing_key=settings.audit_signing_key or None,
        )
    elif not isinstance(audit, Audit):
        raise AuditUnavailable(f"audit is a URL or an Audit(...), not {audit!r}")
    for what in ("tenant", "project"):
        said, own = getattr(audit, what), getattr(settings, what)
        if said not in (own, "default"):
            raise AuditUnavailable(
                f"the history given is that of {what} {said!r}, and the node is of {own!r}:"
                f" give the node Settings({what}={said!r}), or its history no {what}"
            )
    return audit.bind(settings.tenant, settings.project)


def checked_port(port: object) -> int | None:
    if port is None:
        return None
    if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
        raise InvalidSettings(f"metrics_port is a port from 0 (any) to 65535, not {port!r}")
    return port


def made_up_name() -> str:
    return f"node-{os.urandom(4).hex()}"
