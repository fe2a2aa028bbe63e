"""One Redis, whether one server, the master of a service, or a cluster; and the clients of it."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from actorbus.errors import InvalidUrl, TransportUnavailable
from actorbus.redis_client.access import Access
from actorbus.redis_client.keys import encoded
from actorbus.redis_client.line import Line
from actorbus.redis_client.urls import Kind, address
from actorbus.redis_client.wire import NoSocket
from actorbus.redis_client.words import answered, meant, without

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from redis import Redis

    from actorbus.redis_client.clients import Clients, Member

    Make = Callable[..., Redis]
    """Makes a client; keyword arguments are redis-py's."""

OLDEST: Final = (6, 2)
"""The version of Redis whose commands we use."""

_COMMAND_TIMEOUT: Final = 2.5
_CONNECT_TIMEOUT: Final = 2.5
_RETRIES: Final = 3
_HEALTH_CHECK: Final = 10
_INSTALL: Final = "pip install 'actorbus[redis]'"


class RedisServer:
    """One Redis, by URL. Nothing is opened before it is needed; safe from any thread.

    Behind Sentinel, the master is looked up for each new connection. To a cluster, ``client``
    sends each command to the server of its key. A process that was forked must not use its
    parent's sockets: there, every call raises.

    Args:
        url: one of ``SCHEMES``, as the module ``urls`` says.
        access: who we are, and whom we trust, where the URL does not say.
        make: what makes a client instead, as tests on fakeredis do.

    Raises:
        UnknownTransport: another scheme.
        InvalidUrl: it, or what goes with it, cannot be meant.
        TransportUnavailable: redis-py is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "actorbus",
        access: Access | None = None,
        make: Make | None = None,
    ) -> None:
        self._address = address(url)
        self.shown = self._address.shown
        """The URL without its password, for people."""
        self.kind = self._address.kind
        access = Access() if access is None else access
        access.check(self.shown, tls=self._address.tls)
        self._secrets = {*self._address.secrets, *access.secrets}
        self._name = encoded(name)  # a client's name may have no space and no letter beyond ASCII
        self._clients = self._for(access) if make is None else None
        self._make_command = make or self._clients.commands  # type: ignore[union-attr]
        self._make_one = make or self._clients.one  # type: ignore[union-attr]
        self._process = os.getpid()
        self._making = threading.Lock()
        self._client: Redis | None = None

    @property
    def client(self) -> Redis:
        """For commands, and scripts that are idempotent: one that fails may be sent again.

        Raises:
            TransportUnavailable: no server of a cluster answers.
        """
        self.check_process()
        client = self._client
        if client is None:
            with self._making, self.errors():
                client = self._client
                if client is None:
                    client = self._make_command(**self._options(_COMMAND_TIMEOUT, _RETRIES))
                    self._client = client
        return client

    def subscriber(self) -> Redis:
        """A client for pub/sub: it may hear nothing for long. Whoever asked closes it.

        In a cluster, it is at any of its servers: what is published at one is heard at all.
        """
        self.check_process()
        return self._make_one(**self._options(None, 0))

    def publisher(self) -> Redis:
        """A client that sends nothing twice, for at most once. Whoever asked closes it."""
        self.check_process()
        return self._make_one(**self._options(_COMMAND_TIMEOUT, 0))

    def line(self) -> Line:
        """A connection to write to without waiting. Whoever asked closes it.

        Raises:
            NoSocket: there can be none: to a cluster, over TLS, without hiredis.
            TransportUnavailable: the server does not answer.
        """
        if self.kind is Kind.CLUSTER:
            raise NoSocket
        with self.errors():
            return Line(self.client.connection_pool)

    @contextmanager
    def members(self) -> Iterator[list[Member]]:
        """Every server behind the URL, sentinels too, with clients that end with the block.

        Raises:
            TransportUnavailable: nothing answers that would know them.
        """
        self.check_process()
        from actorbus.redis_client.clients import Member

        found: list[Member] = []
        try:
            with self.errors():
                if self._clients is not None:
                    options = self._options(_COMMAND_TIMEOUT, 0)
                    found += self._clients.members(self.client, options)
            yield found or [Member("server", self.shown, self.client)]
        finally:
            for one in found:
                one.client.close()

    def version(self) -> tuple[int, ...]:
        """The server's version, such as (7, 0, 15).

        Raises:
            TransportUnavailable: it cannot be reached, or is older than ``OLDEST``.
        """
        with self.errors():
            told: Any = self.client.info("server")
        found = tuple(int(part) for part in str(told["redis_version"]).split(".") if part.isdigit())
        if found < OLDEST:
            raise TransportUnavailable(
                f"{self.shown} is Redis {told['redis_version']}; 6.2 or newer is needed"
            )
        return found

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Inside, what redis-py raises about the connection or the server becomes ours."""
        from redis.exceptions import RedisClusterException, RedisError

        try:
            yield
        except (RedisError, RedisClusterException) as error:
            self._begin_anew(error)
            words = f"{self.shown}: {self._words(error)}"
            raise TransportUnavailable(words, answered(error)) from None

    def close(self) -> None:
        """Let go of the connections. Idempotent; a forked child only forgets them."""
        client, self._client = self._client, None
        if client is not None and self._process == os.getpid():
            client.close()

    def __repr__(self) -> str:
        return f"<RedisServer {self.shown}>"

    def _options(self, timeout: float | None, retries: int) -> dict[str, Any]:
        from actorbus.redis_client.clients import patience

        return {
            "socket_timeout": timeout,
            "socket_connect_timeout": _CONNECT_TIMEOUT,
            "socket_keepalive": True,
            "health_check_interval": _HEALTH_CHECK,
            "retry": patience(retries),
            "client_name": self._name,
            "driver_info": None,  # two more round trips, and a right that only 6.2 knows by name
            "protocol": 2,
            "legacy_responses": False,
        }

    def _for(self, access: Access) -> Clients:
        try:
            from actorbus.redis_client.clients import Clients
        except ImportError:
            raise TransportUnavailable(
                f"{self.shown} needs the package redis: {_INSTALL}"
            ) from None
        try:
            return Clients(self._address, access)
        except (TypeError, ValueError) as error:
            raise InvalidUrl(
                f"{self.shown}: what is after the ? is no option of redis-py's"
                f" ({self._words(error)})"
            ) from None

    def _begin_anew(self, error: Exception) -> None:
        """Where nobody in a cluster answers, ask the hosts of the URL: all may have moved.

        redis-py asks those that it has last heard of, for ever.
        """
        from redis.exceptions import ConnectionError, RedisClusterException, TimeoutError

        gone = isinstance(error, (ConnectionError, RedisClusterException, TimeoutError))
        if gone and self.kind is Kind.CLUSTER:
            self._client = None  # others may be using it: it closes when they are done

    def _words(self, error: Exception) -> str:
        """The library's words; it quotes no password, and this makes sure of it."""
        return without(meant(error, tls=self._address.tls), self._secrets)

    def check_process(self) -> None:
        """
        Raises:
            TransportUnavailable: this process was forked from the one that it belongs to.
        """
        if self._process != os.getpid():
            raise TransportUnavailable(
                f"{self.shown}: its connections belong to process {self._process}, which was"
                " forked; make a new Node in the child"
            )
