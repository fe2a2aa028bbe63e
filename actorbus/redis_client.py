"""How we speak to Redis: clients, the names of keys, and scripts.

Every back end on Redis shares these. redis-py's defaults lose and repeat: ten retries round send
and receive together, and one time-out for commands and subscribers alike. Here a command may be
sent three times, so **everything that is sent must be idempotent**, and a subscriber waits with
time-outs of its own. What redis-py raises becomes ``TransportUnavailable``, in words without
the password.

Scripts are called by their digest and loaded where the server does not know them (after a
restart, or ``SCRIPT FLUSH``).
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import lru_cache
from hashlib import sha1
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from actorbus.errors import TransportUnavailable, UnknownTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from redis import Redis

    Make = Callable[..., Redis]
    """Makes a client; keyword arguments are redis-py's."""

SCHEMES: Final = ("redis", "rediss", "unix")
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


class Script:
    """A Lua script. Calls of one are one command each; load it before it is pipelined.

    All keys that it touches are in one slot, and it writes nothing before all is checked.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        # Redis names scripts so; nothing depends on nobody finding another text.
        self.digest = sha1(text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: Redis, keys: Sequence[Any], arguments: Sequence[Any]) -> Any:
        """Run it, and load it where the server does not know it (any more)."""
        from redis.exceptions import NoScriptError

        try:
            return client.evalsha(self.digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return client.eval(self.text, len(keys), *keys, *arguments)


def run_all(
    client: Redis, calls: Sequence[tuple[Script, Sequence[Any], Sequence[Any]]]
) -> list[Any]:
    """Run many scripts in one round trip, each on its own; what one raises stands in its place.

    Scripts that the server did not know are loaded, and only those calls are sent again.
    """
    from redis.exceptions import NoScriptError

    results = _pipelined(client, calls)
    unknown = [at for at, one in enumerate(results) if isinstance(one, NoScriptError)]
    if unknown:
        for script in {calls[at][0] for at in unknown}:
            client.script_load(script.text)
        again = _pipelined(client, [calls[at] for at in unknown])
        for at, result in zip(unknown, again, strict=True):
            results[at] = result
    return results


def _pipelined(
    client: Redis, calls: Sequence[tuple[Script, Sequence[Any], Sequence[Any]]]
) -> list[Any]:
    pipeline = client.pipeline(transaction=False)
    for script, keys, arguments in calls:
        pipeline.evalsha(script.digest, len(keys), *keys, *arguments)
    return pipeline.execute(raise_on_error=False)


@lru_cache(maxsize=65_536)
def encoded(name: str) -> str:
    """A name as part of a key: only ``[A-Za-z0-9._~-]``, so none can choose its slot."""
    return quote(name, safe="")


def decoded(part: bytes | str) -> str:
    """The name in a part of a key."""
    return unquote(part.decode() if isinstance(part, bytes) else part)


def checked_url(url: str) -> str:
    """`url`, if it is a Redis server's.

    Raises:
        UnknownTransport: its scheme is none of ``SCHEMES``.
        TransportUnavailable: its host, port or database is none.
    """
    parts = _split(url)
    if parts.scheme not in SCHEMES:
        raise UnknownTransport(url, SCHEMES)
    if parts.scheme == "unix":
        if not parts.path.strip("/"):
            raise TransportUnavailable(
                f"{shown(url)} names no socket; such as unix:///run/redis.sock"
            )
        return url
    database = parts.path.strip("/")
    if database and not database.isdecimal():
        raise TransportUnavailable(
            f"{shown(url)}: the database is a number, such as {parts.scheme}://host:6379/0"
        )
    return url


def shown(url: str) -> str:
    """A URL for people: its password hidden, and what else may be one."""
    try:
        parts = _split(url)
    except TransportUnavailable:
        return "the Redis server"
    host = parts.netloc.rpartition("@")[2]
    user = parts.username or ""
    who = f"{user}:***@" if parts.password is not None else f"{user}@" if user else ""
    return f"{parts.scheme}://{who}{host}{parts.path}"


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - this reads it, and raises
    except ValueError as error:
        raise TransportUnavailable(
            f"that is no URL of a Redis server ({error}); such as redis://host:6379/0"
        ) from None
    return parts
