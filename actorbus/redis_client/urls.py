"""Where a Redis is, as a URL says."""

from __future__ import annotations

from typing import Final
from urllib.parse import SplitResult, urlsplit

from actorbus.errors import TransportUnavailable, UnknownTransport

SCHEMES: Final = ("redis", "rediss", "unix")


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
