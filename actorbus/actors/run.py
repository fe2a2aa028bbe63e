"""A run: work that belongs together, by one id that its messages carry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actorbus.actors.activation import RunScope
from actorbus.bus.origin import CURRENT

if TYPE_CHECKING:
    from typing import Self

    from actorbus.actors.runtime import Runtime


class Run:
    """One run: a context manager whose sends, and all they cause, carry its id."""

    __slots__ = ("_runtime", "_token", "id")

    def __init__(self, runtime: Runtime, run_id: str) -> None:
        self._runtime = runtime
        self._token: Any = None
        self.id = run_id

    def cancel(self) -> None:
        """Cancel what is in hand and what waits for this run, tells included."""
        self._runtime.cancel_run(self.id)

    def __enter__(self) -> Self:
        self._token = CURRENT.set(RunScope(self.id))
        return self

    def __exit__(self, *_: object) -> None:
        CURRENT.reset(self._token)
