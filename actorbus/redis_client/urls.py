"""Where a Redis is, as a URL says: one server, a service that Sentinel watches, a cluster.

``redis://[user:password@]host:6379/0``, ``unix:///run/redis.sock``,
``redis+sentinel://[user:password@]host:26379,host:26379/service/0``,
``redis+cluster://[user:password@]host:6379,host:6379``; with ``rediss`` instead of ``redis``
over TLS. What a URL says after ``?`` goes to redis-py. ``+pubsub`` after any scheme but a
cluster's chooses the transport, not the server; ``parsed`` takes it off.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from actorbus.errors import InvalidUrl, UnknownTransport


class Kind(Enum):
    """What stands behind a URL."""

    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


_KINDS: Final = {
    "redis": Kind.SINGLE,
    "rediss": Kind.SINGLE,
    "unix": Kind.SINGLE,
    "redis+sentinel": Kind.SENTINEL,
    "rediss+sentinel": Kind.SENTINEL,
    "redis+cluster": Kind.CLUSTER,
    "rediss+cluster": Kind.CLUSTER,
}
SCHEMES: Final = tuple(_KINDS)
"""Those of servers."""
_PUBSUB: Final = "+pubsub"
BUS_SCHEMES: Final = SCHEMES + tuple(
    scheme + _PUBSUB for scheme, kind in _KINDS.items() if kind is not Kind.CLUSTER
)
"""Those of busses: a cluster does not tell how many heard, which plain pub/sub lives by."""

_EXAMPLES: Final = {
    Kind.SINGLE: "redis://host:6379/0",
    Kind.SENTINEL: "redis+sentinel://host:26379,host:26379/service/0",
    Kind.CLUSTER: "redis+cluster://host:6379,host:6379",
}
_PORTS: Final = {Kind.SINGLE: 6379, Kind.SENTINEL: 26379, Kind.CLUSTER: 6379}


BusKind = Literal["durable", "pubsub"]
"""Whether a bus keeps messages, or speaks through Redis pub/sub alone."""


class Parsed(NamedTuple):
    """The URL of a bus, taken apart."""

    transport: BusKind
    url: str
    """The server's, as ``RedisServer`` takes it."""


@dataclass(frozen=True, slots=True)
class Address:
    """A URL that was checked. Nothing of it that is secret is in its ``repr``."""

    kind: Kind
    tls: bool
    shown: str
    """The URL without its password, for people."""
    url: str
    """As redis-py reads one server's: the first host's."""
    hosts: tuple[tuple[str, int], ...]
    """Of the sentinels, or of some of the cluster's servers; none of a socket."""
    service: str
    secrets: tuple[str, ...]
    """What no error may quote."""

    def __repr__(self) -> str:
        return f"<Address {self.shown}>"


def parsed(url: str) -> Parsed:
    """The transport that the URL of a bus means, and the URL of its server. Connects to nothing.

    Raises:
        UnknownTransport: its scheme is none of ``BUS_SCHEMES``.
    """
    scheme, colon, rest = url.partition(":")
    scheme = scheme.lower()
    if not colon or scheme not in BUS_SCHEMES:
        raise UnknownTransport(url, BUS_SCHEMES)
    server = scheme.removesuffix(_PUBSUB)
    return Parsed("durable" if server == scheme else "pubsub", f"{server}:{rest}")


def address(url: str) -> Address:
    """What the URL of a server says.

    Raises:
        UnknownTransport: its scheme is none of ``SCHEMES``.
        InvalidUrl: its hosts, service or database are none; the error says how to
            write it, and quotes no password.
    """
    scheme = url.partition(":")[0].lower()
    if scheme not in _KINDS or "://" not in url:
        raise UnknownTransport(url, SCHEMES)
    kind = _KINDS[scheme]
    parts = _split(url, kind)
    service, database = _path(parts, kind, shown(url))
    hosts = () if scheme == "unix" else _hosts(parts, kind)
    return Address(
        kind=kind,
        tls=scheme.startswith("rediss"),
        shown=shown(url),
        url=url if kind is Kind.SINGLE else _plain(parts, hosts[0], database),
        hosts=hosts,
        service=service,
        secrets=tuple(_secrets(parts)),
    )


def checked_url(url: str) -> str:
    """`url`, if it is a Redis server's.

    Raises:
        UnknownTransport, InvalidUrl: as ``address``.
    """
    address(url)
    return url


def shown(url: str) -> str:
    """A URL for people: its password hidden, and what else may be one."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the Redis server"
    if _hides_a_password(parts):
        return "the Redis server"
    host = parts.netloc.rpartition("@")[2]
    user = parts.username or ""
    who = f"{user}:***@" if parts.password is not None else f"{user}@" if user else ""
    return f"{parts.scheme}://{who}{host}{parts.path}"


def _hides_a_password(parts: SplitResult) -> bool:
    """Whether a ``/``, ``?`` or ``#`` in a password made it end too early."""
    return "@" in parts.path + parts.query + parts.fragment


def _split(url: str, kind: Kind) -> SplitResult:
    try:
        parts = urlsplit(url)
        if _hides_a_password(parts):
            raise InvalidUrl(
                "that is no URL of a Redis server: in a user name or password, write"
                " @ as %40, / as %2F, ? as %3F and # as %23"
            )
        if kind is Kind.SINGLE:
            parts.port  # noqa: B018 - this reads it, and raises
    except ValueError as error:
        why = f" ({error})" if "@" not in url else ""
        raise InvalidUrl(
            f"that is no URL of a Redis server{why}; such as {_EXAMPLES[kind]}{_hint(url, kind)}"
        ) from None
    return parts


def _hint(url: str, kind: Kind) -> str:
    if kind is Kind.SINGLE and "," in url:
        others = (_EXAMPLES[Kind.SENTINEL], _EXAMPLES[Kind.CLUSTER])
        return f", and with several hosts {' or '.join(others)}"
    return ""


def _hosts(parts: SplitResult, kind: Kind) -> tuple[tuple[str, int], ...]:
    found = []
    for host in parts.netloc.rpartition("@")[2].split(","):
        try:
            one = urlsplit(f"//{host}")
            found.append((one.hostname or "", one.port or _PORTS[kind]))
        except ValueError:
            found.append(("", 0))
    if kind is Kind.SINGLE:
        return ((found[0][0] or "localhost", found[0][1]),)
    if not all(host for host, _ in found):
        raise InvalidUrl(
            f"{shown(parts.geturl())} names no host, or a port that is none; such as"
            f" {_EXAMPLES[kind]}"
        )
    return tuple(found)


def _path(parts: SplitResult, kind: Kind, people_see: str) -> tuple[str, str]:
    """The service and the database."""
    if parts.scheme == "unix":
        if not parts.path.strip("/") or parts.netloc.rpartition("@")[2]:
            raise InvalidUrl(f"{people_see} names no socket; such as unix:///run/redis.sock")
        return "", ""
    service, database = "", parts.path.strip("/")
    if kind is Kind.SENTINEL:
        service, _, database = database.partition("/")
        if not service:
            raise InvalidUrl(f"{people_see} names no service; such as {_EXAMPLES[kind]}")
    if database and not database.isdecimal():
        raise InvalidUrl(f"{people_see}: the database is a number, such as {_EXAMPLES[kind]}")
    if kind is Kind.CLUSTER and database.strip("0"):
        raise InvalidUrl(f"{people_see}: a cluster has no database but 0; use a namespace instead")
    return unquote(service), database


def _plain(parts: SplitResult, host: tuple[str, int], database: str) -> str:
    """The URL of one server, which redis-py reads the rest from."""
    who = parts.netloc.rpartition("@")[0]
    scheme = "rediss" if parts.scheme.startswith("rediss") else "redis"
    name = f"[{host[0]}]" if ":" in host[0] else host[0]
    query = f"?{parts.query}" if parts.query else ""
    return f"{scheme}://{who}{'@' if who else ''}{name}:{host[1]}/{database}{query}"


def _secrets(parts: SplitResult) -> set[str]:
    found = set(parse_qs(parts.query).get("password", ()))
    if parts.password:
        found |= {parts.password, unquote(parts.password)}
    return found
