"""Lua scripts, called by their digest: one, or many in a round trip to each server."""

from __future__ import annotations

import random
import time
from enum import Enum
from hashlib import sha1
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from redis import Redis
    from redis.cluster import RedisCluster

    Call = tuple["Script", Sequence[Any], Sequence[Any]]
    """A script, its keys and its arguments."""

_ROUNDS: Final = 4
"""How often what a server would not do just now is asked of the one that may by then."""
_PAUSE: Final = 0.1
_PATIENCE: Final = 5.0
"""Seconds after which nothing is asked again."""


class Script:
    """A Lua script. Calls of one are one command each; load it before it is pipelined.

    All keys that it touches are in one slot, and it writes nothing before all is checked.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        # Redis names scripts so; nothing depends on nobody finding another text.
        self.digest = sha1(text.encode(), usedforsecurity=False).hexdigest()

    @classmethod
    def beside(cls, module: str, *names: str) -> Script:
        """The files of those names in the folder ``scripts`` beside a module, one after another.

        `module` is its ``__file__``.
        """
        folder = Path(module).parent / "scripts"
        return cls("".join((folder / f"{name}.lua").read_text() for name in names))

    def __call__(self, client: Redis, keys: Sequence[Any], arguments: Sequence[Any]) -> Any:
        """Run it, and load it where the server does not know it (any more).

        A server that was a master until just now is left for the one that is.
        """
        from redis.exceptions import ResponseError

        for attempt in range(1, _ROUNDS + 1):
            try:
                return self._run(client, keys, arguments)
            except ResponseError as error:
                if attempt == _ROUNDS or not _is_demoted(error):
                    raise
            _leave(client, attempt)
        raise AssertionError("unreachable")

    def _run(self, client: Redis, keys: Sequence[Any], arguments: Sequence[Any]) -> Any:
        from redis.exceptions import NoScriptError

        try:
            return client.evalsha(self.digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return client.eval(self.text, len(keys), *keys, *arguments)


def run_all(client: Redis | RedisCluster, calls: Sequence[Call]) -> list[Any]:
    """Run many scripts, each on its own; what one raises stands in its place.

    That is one round trip, or in a cluster one to all servers at a time. Scripts that a server
    does not know are loaded there; and only those calls are sent again, as are those that
    belong to another server by now.
    """
    from redis.cluster import RedisCluster

    give_up = time.monotonic() + _PATIENCE
    run: Any = _run_in_cluster if isinstance(client, RedisCluster) else _run_at_server
    results: list[Any] = [None] * len(calls)
    left = list(range(len(calls)))
    for attempt in range(1, _ROUNDS + 1):
        told = run(client, [calls[at] for at in left])
        for at, result in zip(left, told, strict=True):
            results[at] = result
        left = [
            at for at in left if isinstance(results[at], Exception) and _is_elsewhere(results[at])
        ]
        if not left or time.monotonic() > give_up or attempt == _ROUNDS:
            break
        _leave(client, attempt, [results[at] for at in left])
    return results


def _run_known(run: Callable[[list[Call], _Means], list[Any]], calls: Sequence[Call]) -> list[Any]:
    """Run calls by digest; those that are not known, again by other means.

    A server may forget what it was given before it is asked for it, again and again: at last
    each call brings its text.
    """
    from redis.exceptions import NoScriptError

    results: list[Any] = [None] * len(calls)
    left = list(range(len(calls)))
    for means in _Means:
        told = run([calls[at] for at in left], means)
        for at, result in zip(left, told, strict=True):
            results[at] = result
        left = [at for at in left if isinstance(results[at], NoScriptError)]
        if not left:
            break
    return results


class _Means(Enum):
    """How a server is told which script it is to run, the cheapest first."""

    KNOWN = 1
    LOADED = 2
    """All are given to it before the first is called."""
    TEXT = 3


def _commands(calls: Iterable[Call], means: _Means) -> list[tuple[Any, ...]]:
    """A command for each call."""
    if means is _Means.TEXT:
        return [("EVAL", one.text, len(keys), *keys, *more) for one, keys, more in calls]
    return [("EVALSHA", one.digest, len(keys), *keys, *more) for one, keys, more in calls]


def _loads(calls: Iterable[Call], means: _Means) -> list[tuple[Any, ...]]:
    """What is to be sent before them."""
    if means is not _Means.LOADED:
        return []
    return [("SCRIPT LOAD", one.text) for one in {script for script, _, _ in calls}]


def _run_at_server(client: Redis, calls: Sequence[Call]) -> list[Any]:
    def run(some: list[Call], means: _Means) -> list[Any]:
        loads = _loads(some, means)
        pipeline: Any = client.pipeline(transaction=False)
        for command in (*loads, *_commands(some, means)):
            pipeline.execute_command(*command)
        told: list[Any] = pipeline.execute(raise_on_error=False)
        return told[len(loads) :]

    return _run_known(run, calls)


# -- in a cluster


def _run_in_cluster(client: RedisCluster, calls: Sequence[Call]) -> list[Any]:
    return _run_known(lambda some, means: _scattered(client, some, means), calls)


def _scattered(client: RedisCluster, calls: Sequence[Call], means: _Means) -> list[Any]:
    """Ask every server its part before any is heard; what fails stands in its calls' places."""
    from redis.exceptions import AskError, MovedError, RedisClusterException, RedisError

    parts: dict[Any, _Part] = {}
    results: list[Any] = [None] * len(calls)
    for at, (_, keys, _) in enumerate(calls):
        try:
            node = client.nodes_manager.get_node_from_slot(client.keyslot(keys[0]))  # type: ignore[no-untyped-call]
        except RedisClusterException as error:  # nobody has the slot just now
            results[at] = error
            continue
        parts.setdefault(node.name, _Part(client.get_redis_connection(node))).places.append(at)
    for part in parts.values():
        part.ask([calls[at] for at in part.places], means)
    for part in parts.values():
        for at, result in zip(part.places, part.answers(), strict=True):
            results[at] = result
    for at, result in enumerate(results):
        if isinstance(result, AskError) and not isinstance(result, MovedError):
            try:  # on its way to another server: redis-py follows one command at a time
                results[at] = calls[at][0](client, *calls[at][1:])  # type: ignore[arg-type]
            except (RedisError, RedisClusterException) as error:
                results[at] = error
    return results


class _Part:
    """The calls of one server, on a connection of their own."""

    def __init__(self, redis: Redis) -> None:
        self.places: list[int] = []
        self._redis = redis
        self._connection: Any = None
        self._sent = 0
        self._failed: Exception | None = None

    def ask(self, calls: Sequence[Call], means: _Means) -> None:
        commands = [*_loads(calls, means), *_commands(calls, means)]
        self._sent = len(commands)
        self._attempt(lambda: self._send(commands))

    def answers(self) -> list[Any]:
        heard = [self._attempt(self._hear) for _ in range(self._sent)]
        if self._connection is not None:
            self._redis.connection_pool.release(self._connection)
        return heard[self._sent - len(self.places) :]

    def _send(self, commands: Sequence[tuple[Any, ...]]) -> None:
        self._connection = self._redis.connection_pool.get_connection()
        self._connection.send_packed_command(self._connection.pack_commands(commands))

    def _hear(self) -> Any:
        return self._redis.parse_response(self._connection, "EVALSHA")  # type: ignore[no-untyped-call]

    def _attempt(self, do: Any) -> Any:
        """What `do` returns, or the error; the connection's own is that of all that follow."""
        from redis.exceptions import ConnectionError, RedisError, ResponseError, TimeoutError

        if self._failed is not None:
            return self._failed
        try:
            return do()
        except ResponseError as error:
            return error
        except (ConnectionError, TimeoutError) as error:
            self._failed = error
            if self._connection is not None:
                self._connection.disconnect()
            return error
        except RedisError as error:
            return error


# -- who is whose master


def _is_demoted(error: Exception) -> bool:
    """Whether a server says, also from within a script, that it only copies another's writes."""
    return "READONLY" in str(error)


def _is_elsewhere(result: Exception) -> bool:
    """Whether another server, or the same a moment later, may do what this one would not."""
    from redis.exceptions import (
        ClusterDownError,
        ConnectionError,
        MovedError,
        SlotNotCoveredError,
        TimeoutError,
        TryAgainError,
    )

    passing = (
        ClusterDownError,
        ConnectionError,
        MovedError,
        SlotNotCoveredError,
        TimeoutError,
        TryAgainError,
    )
    return isinstance(result, passing) or _is_demoted(result)


def _leave(client: Any, attempt: int, errors: Sequence[Any] = ()) -> None:
    """Look anew for who has what. After a while, but for slots that are said to have moved.

    Where these went is believed: whoever else is asked may not have heard of it yet.
    """
    from redis.cluster import RedisCluster
    from redis.exceptions import MovedError, RedisClusterException, RedisError

    moved = [one for one in errors if isinstance(one, MovedError)]
    if not moved or len(moved) < len(errors):
        time.sleep(_PAUSE * attempt * random.uniform(0.5, 1.0))
    if not isinstance(client, RedisCluster):
        client.connection_pool.disconnect(inuse_connections=False)
        return
    try:
        client.nodes_manager.initialize(
            additional_startup_nodes_info=[(one.host, one.port) for one in moved[:3]]
        )
        for one in moved:
            client.nodes_manager.move_slot(one)
    except (RedisError, RedisClusterException, KeyError):
        return  # nobody answers, or has the slot: the next round says so
