"""The directory: which nodes are there, and which agents run on them. One for many nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from actorbus.message import OpenStrEnum

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from actorbus.registry.entry import Entry


class ChangeKind(OpenStrEnum):
    """What happened: to an agent (joined, left), or to a node and so to all its agents."""

    JOINED = "joined"
    LEFT = "left"
    SUSPECT = "suspect"
    DEAD = "dead"
    BACK = "back"


class DirectoryChange(NamedTuple):
    """An agent joined or left."""

    kind: ChangeKind
    entry: Entry


class Directory(Protocol):
    """Holds the nodes and their agents; judges nobody, except that a dead node owns no name.

    Time is the directory's own, so nodes whose clocks differ can share one. A node is dead to
    the directory once others have gone on beating for ``dead_after`` seconds without it. Where
    *nobody* has beaten for more than half of that, the directory was away and not the nodes:
    the first beat then counts for everybody (without this rule, a pause of the store or of the
    process declares every other node dead).

    Safe from any thread. ``get`` and ``members`` answer from memory: a directory on a server
    keeps a local view.
    """

    @property
    def load_age(self) -> float:
        """How old, in seconds, the load of a member may be; 0.0 where it is read live."""

    def join(self, node: str) -> Mapping[str, float]:
        """Add `node`, as if it had just beaten. Returns what ``beat`` returns.

        A node of that name that has been silent for ``dead_after`` is replaced, its agents
        gone.

        Raises:
            NameTaken: a live node has that name.
        """

    def beat(self, node: str) -> Mapping[str, float]:
        """Say that `node` lives. Returns how long each node has been silent, in seconds."""

    def leave(self, node: str) -> None:
        """Remove `node` and all its agents. Idempotent."""

    def register(self, entry: Entry) -> None:
        """Add an agent; the same member once more on the same node changes nothing.

        Raises:
            NameTaken: another member has the name, on a node that is not dead.
            BusClosed: the node of `entry` has not joined.
        """

    def unregister(self, name: str, node: str) -> None:
        """Remove the agent of that name, if it is on `node`. Idempotent."""

    def get(self, name: str) -> Entry | None:
        """The agent of that name."""

    def members(self, capability: str | None = None) -> Sequence[Entry]:
        """Those who offer `capability`, or all, in the order they joined. Never changed later."""

    def listen(self, listener: Callable[[DirectoryChange], None]) -> Callable[[], None]:
        """Call `listener` with each change from now on, in order, one at a time, on any thread.

        It must be quick and must not raise. Returns the way out.
        """
