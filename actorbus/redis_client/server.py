"""One Redis, and the clients of it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from actorbus.errors import TransportUnavailable
from actorbus.redis_client.urls import checked_url, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from redis import Redis

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

    A process that was forked must not use its parent's sockets: there, every call raises.

    Args:
        url: ``redis://``, ``rediss://`` (TLS) or ``unix://``, as redis-py reads them.
        make: what makes a client instead, as tests on fakeredis do.

    Raises:
        UnknownTransport: another scheme.
        TransportUnavailable: redis-py is not installed, or it cannot read the URL.
    """

    def __init__(self, url: str, *, name: str = "actorbus", make: Make | None = None) -> None:
        self._url = checked_url(url)
        self.shown = shown(url)
        """The URL without its password, for people."""
        self._name = name
        self._make = self._maker() if make is None else make
        self._process = os.getpid()
        self._client: Redis | None = None

    @property
    def client(self) -> Redis:
        """For commands, and scripts that are idempotent: one that fails may be sent again."""
        self._check_process()
        if self._client is None:
            self._client = self._make(**self._options(_COMMAND_TIMEOUT, _RETRIES))
        return self._client

    def subscriber(self) -> Redis:
        """A client for pub/sub: it may hear nothing for long. Whoever asked closes it."""
        self._check_process()
        return self._make(**self._options(None, 0))

    def publisher(self) -> Redis:
        """A client that sends nothing twice, for at most once. Whoever asked closes it."""
        self._check_process()
        return self._make(**self._options(_COMMAND_TIMEOUT, 0))

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
        from redis.exceptions import RedisError

        try:
            yield
        except RedisError as error:
            raise TransportUnavailable(f"{self.shown}: {self._words(error)}") from None

    def close(self) -> None:
        """Let go of the connections. Idempotent; a forked child only forgets them."""
        client, self._client = self._client, None
        if client is not None and self._process == os.getpid():
            client.close()

    def __repr__(self) -> str:
        return f"<RedisServer {self.shown}>"

    def _options(self, timeout: float | None, retries: int) -> dict[str, Any]:
        from redis.backoff import ExponentialWithJitterBackoff
        from redis.retry import Retry

        return {
            "socket_timeout": timeout,
            "socket_connect_timeout": _CONNECT_TIMEOUT,
            "socket_keepalive": True,
            "health_check_interval": _HEALTH_CHECK,
            "retry": Retry(ExponentialWithJitterBackoff(), retries),
            "client_name": self._name,
            "protocol": 2,
            "legacy_responses": False,
        }

    def _maker(self) -> Make:
        try:
            import redis
        except ImportError:
            raise TransportUnavailable(
                f"{self.shown} needs the package redis: {_INSTALL}"
            ) from None

        def make(**options: Any) -> Redis:
            if self._url.startswith("unix:"):
                options.pop("socket_keepalive")
            try:
                return redis.Redis.from_url(self._url, **options)
            except ValueError as error:
                raise TransportUnavailable(f"{self.shown}: {self._words(error)}") from None

        return make

    def _words(self, error: Exception) -> str:
        """The library's words; it quotes no password, and this makes sure of it."""
        text = str(error) or type(error).__name__
        password = urlsplit(self._url).password
        for secret in {password, unquote(password)} if password else ():
            text = text.replace(secret, "***")
        return text

    def _check_process(self) -> None:
        if self._process != os.getpid():
            raise TransportUnavailable(
                f"{self.shown}: its connections belong to process {self._process}, which was"
                " forked; make a new Node in the child"
            )
