"""The awaitable twin of ``Context``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from actorbus.context.context import Context, Versioned
    from actorbus.context.store import Change, Rights
    from actorbus.context.watch import Lagged, Watch

P = ParamSpec("P")
T = TypeVar("T")


class AsyncContext:
    """What ``Context`` has, to be awaited, and it means the same.

    Calls to a store that may wait run on a thread; others are done at once, on the loop.
    """

    def __init__(self, context: Context, *, blocks: bool) -> None:
        self._context = context
        self._blocks = blocks

    async def get(self, key: str, default: Any = None) -> Any:
        return await self._do(self._context.get, key, default)

    async def versioned(self, key: str) -> Versioned:
        return await self._do(self._context.versioned, key)

    async def keys(self, prefix: str = "") -> list[str]:
        return await self._do(self._context.keys, prefix)

    async def snapshot(self) -> dict[str, Any]:
        return await self._do(self._context.snapshot)

    async def set(self, key: str, value: Any, ttl: float | None = None) -> int:
        return await self._do(self._context.set, key, value, ttl)

    async def delete(self, key: str) -> bool:
        return await self._do(self._context.delete, key)

    async def compare_and_set(
        self, key: str, value: Any, version: int, ttl: float | None = None
    ) -> int:
        return await self._do(self._context.compare_and_set, key, value, version, ttl)

    async def update(self, key: str, fn: Callable[[Any], Any], default: Any = None) -> Any:
        return await self._do(self._context.update, key, fn, default)

    async def increment(self, key: str, by: float = 1) -> Any:
        return await self._do(self._context.increment, key, by)

    async def commit(
        self,
        *,
        set: Mapping[str, Any] | None = None,
        delete: Iterable[str] = (),
        increment: Mapping[str, float] | None = None,
        expect: Mapping[str, int] | None = None,
        ttl: float | Mapping[str, float] | None = None,
    ) -> dict[str, Change]:
        return await self._do(
            self._context.commit,
            set=set,
            delete=delete,
            increment=increment,
            expect=expect,
            ttl=ttl,
        )

    async def history(self, key: str) -> list[Change]:
        return await self._do(self._context.history, key)

    async def at(self, key: str, version: int) -> Change:
        return await self._do(self._context.at, key, version)

    async def watch(self, prefix: str, callback: Callable[[Change | Lagged], object]) -> Watch:
        """As ``Context.watch``: also here the callback runs on the watch thread."""
        return await self._do(self._context.watch, prefix, callback)

    async def grant(self, agent: str | None, rights: Rights) -> None:
        await self._do(self._context.grant, agent, rights)

    async def revoke(self, agent: str | None) -> None:
        await self._do(self._context.revoke, agent)

    async def _do(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if not self._blocks:
            return call(*args, **kwargs)
        import asyncio  # slow, and whoever awaits has it already

        return await asyncio.to_thread(call, *args, **kwargs)
