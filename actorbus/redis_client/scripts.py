"""Lua scripts, called by their digest: one, or many in a round trip to each server."""

from __future__ import annotations

import random
import time
from hashlib import sha1
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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


def _run_at_server(client: Redis, calls: Sequence[Call]) -> list[Any]:
    results = _pipelined(client, calls)
    unknown = _unknown(results)
    if unknown:
        for script in {calls[at][0] for at in unknown}:
            client.script_load(script.text)
        again = _pipelined(client, [calls[at] for at in unknown])
        for at, result in zip(unknown, again, strict=True):
            results[at] = result
    return results


def _pipelined(client: Redis, calls: Sequence[Call]) -> list[Any]:
    pipeline = client.pipeline(transaction=False)
    for script, keys, arguments in calls:
        pipeline.evalsha(script.digest, len(keys), *keys, *arguments)
    return pipeline.execute(raise_on_error=False)


def _unknown(results: Sequence[Any]) -> list[int]:
    from redis.exceptions import NoScriptError

    return [at for at, one in enumerate(results) if isinstance(one, NoScriptError)]


# -- in a cluster


def _run_in_cluster(client: RedisCluster, calls: Sequence[Call]) -> list[Any]:
    results = _scattered(client, calls)
    unknown = _unknown(results)
    if unknown:
        again = _scattered(client, [calls[at] for at in unknown], load=True)
        for at, result in zip(unknown, again, strict=True):
            results[at] = result
    return results


def _scattered(client: RedisCluster, calls: Sequence[Call], *, load: bool = False) -> list[Any]:
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
        part.ask([calls[at] for at in part.places], load=load)
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

    def ask(self, calls: Iterable[Call], *, load: bool) -> None:
        calls = list(calls)
        loads = [("SCRIPT", "LOAD", one.text) for one in {call[0] for call in calls}]
        runs = [
            ("EVALSHA", script.digest, len(keys), *keys, *arguments)
            for script, keys, arguments in calls
        ]
        commands = loads + runs if load else runs
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
    """Look anew for who has what. After a while, but for slots that are said to have moved."""
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
    except (RedisError, RedisClusterException):
        return  # nobody answers: the next round says so
