"""redis-py's clients of one server, of the master that Sentinel names, and of a cluster.

The only module here that imports redis-py when it is imported.
"""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import Connection, parse_url
from redis.exceptions import AuthenticationError, AuthorizationError
from redis.retry import Retry
from redis.sentinel import Sentinel

from actorbus.redis_client.urls import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from actorbus.redis_client.access import Access
    from actorbus.redis_client.urls import Address

_SENTINEL_TIMEOUT: Final = 0.5
_OF_POOLS: Final = ("max_connections", "timeout")
"""Options of a URL that are not its connections'."""


_LASTING: Final = ("CERTIFICATE_VERIFY", "Timeout connecting")
"""Of errors that are the same a moment later, or took long enough."""


class Member(NamedTuple):
    """One of the servers behind a URL, and a client of it."""

    role: Literal["server", "sentinel", "primary", "replica"]
    place: str
    client: Any


class Patience(Retry):
    """Tries again, but not what another try cannot mend, nor what was tried again already.

    redis-py tries a command again round connecting, which it tries again too: sixteen times in
    all, a wrong password as well.
    """

    def call_with_retry(
        self,
        do: Callable[[], Any],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> Any:
        def may_pass(error: Exception) -> bool:
            return _may_pass(error) and (is_retryable is None or is_retryable(error))

        try:
            return super().call_with_retry(do, fail, may_pass, with_failure_count)
        except self._supported_errors as error:
            error.tried = True  # type: ignore[attr-defined]
            raise


def patience(retries: int) -> Patience:
    return Patience(ExponentialWithJitterBackoff(), retries)


def _may_pass(error: Exception) -> bool:
    if isinstance(error, (AuthenticationError, AuthorizationError)):
        return False
    if getattr(error, "tried", False):
        return False
    return not any(words in str(error) for words in _LASTING)


class Clients:
    """Makes clients of what an address names, with redis-py's keyword arguments.

    Raises:
        TypeError, ValueError: the URL has options that redis-py does not know.
    """

    def __init__(self, address: Address, access: Access) -> None:
        self._address = address
        self._access = access
        self._cluster: RedisCluster | None = None
        said = parse_url(address.url)  # type: ignore[no-untyped-call]
        for name in _OF_POOLS:
            said.pop(name, None)
        # It opens nothing, and takes no option that it does not know.
        said.pop("connection_class", Connection)(**said)

    def commands(self, **options: Any) -> Any:
        """A client for commands with keys."""
        match self._address.kind:
            case Kind.CLUSTER:
                self._cluster = self._of_cluster(options)
                return self._cluster
            case Kind.SENTINEL:
                return self._of_master(options)
            case _:
                return self._of_server(options)

    def one(self, **options: Any) -> Any:
        """A client with a single server at its end: in a cluster any, another each time."""
        if self._address.kind is not Kind.CLUSTER:
            return self.commands(**options)
        host, port = random.choice(self.hosts())
        return Redis(host=host, port=port, **self._options(options))

    def hosts(self) -> list[tuple[str, int]]:
        """The servers of a cluster, as far as they are known."""
        nodes = [] if self._cluster is None else self._cluster.get_nodes()  # type: ignore[no-untyped-call]
        return [(node.host, node.port) for node in nodes] or list(self._address.hosts)

    def sentinel(self) -> Sentinel:
        """The sentinels. Whoever asked closes them."""
        return _Sentinel(self._address.hosts, sentinel_kwargs=self._to_sentinels())

    def members(self, client: Any, options: dict[str, Any]) -> list[Member]:
        """The servers behind the address but for a single one, as who should know tells them."""
        match self._address.kind:
            case Kind.CLUSTER:
                nodes = sorted((node.server_type, node.name, node) for node in client.get_nodes())
                return [self._member(kind, (one.host, one.port), options) for kind, _, one in nodes]
            case Kind.SENTINEL:
                return self._around_master(options)
            case _:
                return []

    def _around_master(self, options: dict[str, Any]) -> list[Member]:
        sentinels = self.sentinel()
        try:
            primary = sentinels.discover_master(self._address.service)  # type: ignore[no-untyped-call]
            replicas = sentinels.discover_slaves(self._address.service)  # type: ignore[no-untyped-call]
        finally:
            sentinels.close()
        watching = [
            Member("sentinel", f"{host}:{port}", Redis(host, port, **self._to_sentinels()))
            for host, port in self._address.hosts
        ]
        serving = [self._member("primary", primary, options)]
        return serving + [self._member("replica", one, options) for one in replicas] + watching

    def _member(self, role: Any, place: Any, options: dict[str, Any]) -> Member:
        host, port = place
        client = Redis(host=host, port=port, **self._options(options))
        return Member(role, f"{host}:{port}", client)

    def _of_server(self, options: dict[str, Any]) -> Redis:
        if self._address.url.startswith("unix:"):
            options = {name: value for name, value in options.items() if "keepalive" not in name}
        tls = self._access.tls_options() if self._address.tls else {}
        return Redis.from_url(self._address.url, **self._access.options(), **tls, **options)

    def _of_master(self, options: dict[str, Any]) -> Redis:
        client: Redis = self.sentinel().master_for(self._address.service, **self._options(options))  # type: ignore[no-untyped-call]
        return client

    def _of_cluster(self, options: dict[str, Any]) -> RedisCluster:
        nodes = [ClusterNode(host, port) for host, port in self._address.hosts]  # type: ignore[no-untyped-call]
        return RedisCluster(startup_nodes=nodes, **self._options(options, "db"))

    def _options(self, options: dict[str, Any], *without: str) -> dict[str, Any]:
        """`options`, and what the URL and the access say of every server."""
        said = parse_url(self._address.url)  # type: ignore[no-untyped-call]
        for name in ("host", "port", "connection_class", *without):
            said.pop(name, None)
        return {**options, **self._tls(), **self._access.options(), **said}

    def _to_sentinels(self) -> dict[str, Any]:
        return {
            "socket_timeout": _SENTINEL_TIMEOUT,
            "socket_connect_timeout": _SENTINEL_TIMEOUT,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            "legacy_responses": False,
            **self._access.sentinel_options(),
            **self._tls(),
        }

    def _tls(self) -> dict[str, Any]:
        return {"ssl": True, **self._access.tls_options()} if self._address.tls else {}


class _Sentinel(Sentinel):
    """redis-py's puts the sentinel that answered first in its list, which threads may share."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)  # type: ignore[no-untyped-call]
        self._lock = threading.Lock()

    def discover_master(self, service_name: str) -> Any:
        with self._lock:
            return super().discover_master(service_name)  # type: ignore[no-untyped-call]
