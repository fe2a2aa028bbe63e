"""What the registry knows of an agent: live, as a ``Member``; as read by users, an ``AgentInfo``.

A live agent is asked, never copied: how busy it is, what waits and what it has done are read
from it when somebody looks, so a message costs the registry nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from actorbus.errors import InvalidArgument, did_you_mean
from actorbus.message import OpenStrEnum, check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class AgentStatus(OpenStrEnum):
    """How an agent stands. ``suspect`` and ``dead`` are said of its node."""

    STARTING = "starting"
    BUSY = "busy"
    IDLE = "idle"
    SUSPECT = "suspect"
    DEAD = "dead"
    PARKED = "parked"
    STOPPED = "stopped"


_ACTIVE: Final = "active"
_GROUPS: Final = {_ACTIVE: frozenset({AgentStatus.BUSY, AgentStatus.IDLE})}
_WORDS: Final = (_ACTIVE, *(status.value for status in AgentStatus))


def statuses(word: AgentStatus | str) -> frozenset[AgentStatus]:
    """The statuses that a search for `word` means; ``active`` means busy or idle.

    Raises:
        InvalidArgument: a plain str that is none of the words known here.
    """
    if isinstance(word, AgentStatus):
        return frozenset({word})
    if word not in _WORDS:
        known = ", ".join(_WORDS)
        guess = did_you_mean(word, _WORDS) if isinstance(word, str) else ""
        raise InvalidArgument("an agent's status", word, f"known are {known}.{guess}")
    return _GROUPS.get(word) or frozenset({AgentStatus(word)})


@dataclass(frozen=True, slots=True)
class Capability:
    """Something an agent can do. Searches go by the name; the rest tells how to ask for it."""

    name: str
    version: str = ""
    schema: Mapping[str, Any] | None = None

    @classmethod
    def parse(cls, value: str | Capability) -> Capability:
        """`value`, or the capability of that name.

        Raises:
            InvalidName: not the name of a capability.
        """
        if isinstance(value, Capability):
            check_name("a capability", value.name)
            return value
        return cls(check_name("a capability", value))

    def __str__(self) -> str:
        return self.name


class Member(Protocol):
    """What a live agent shows the registry. Read often and from any thread: keep it cheap."""

    @property
    def name(self) -> str:
        """Fixed for the agent's life, as are its type and its capabilities."""

    @property
    def agent_type(self) -> str: ...

    @property
    def capabilities(self) -> tuple[str | Capability, ...]:
        """Names; a ``Capability`` where there is a version or a schema to tell."""

    @property
    def metadata(self) -> Mapping[str, Any]: ...

    @property
    def status(self) -> AgentStatus: ...

    @property
    def message_count(self) -> int:
        """Messages handled so far."""

    @property
    def load(self) -> int:
        """Messages waiting and in hand."""

    def when_stirred(self, tell: Callable[[Member], object]) -> bool:
        """Call `tell` once, when it next goes to work; only the last `tell` given is called.

        While it is idle with nothing waiting, nothing that it shows changes before that. `tell`
        is called on the thread that works, and is quick. False: it never tells, so whoever
        wants to know looks.
        """


def capability_names(capabilities: object) -> tuple[str, ...]:
    """The checked names of what a member offers.

    Raises:
        InvalidArgument: not a tuple of capabilities, or one of them has no proper name.
    """
    if not isinstance(capabilities, tuple):
        raise InvalidArgument("capabilities", capabilities, "write a tuple, as in ('count-words',)")
    plain = True
    for one in capabilities:
        if isinstance(one, Capability):
            plain, one = False, one.name
        check_name("a capability", one)
    # Agents of one class share their tuple: a copy would cost each of them its own.
    return capabilities if plain else tuple([str(one) for one in capabilities])


@dataclass(slots=True, eq=False)
class Entry:
    """One registration: a member, its node, and the names it is found by. Never changed."""

    member: Member
    node: str
    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """An agent as it stood when it was looked up.

    ``last_heartbeat`` is its node's, in node time (seconds); ``load`` counts messages waiting
    and in hand, ``message_count`` those handled so far.
    """

    name: str
    agent_type: str
    capabilities: tuple[Capability, ...]
    status: AgentStatus
    node: str
    last_heartbeat: float
    message_count: int
    load: int
    metadata: Mapping[str, Any]


def describe(entry: Entry, *, status: AgentStatus, last_heartbeat: float) -> AgentInfo:
    """`entry` as users see it, read from the live member now."""
    member = entry.member
    return AgentInfo(
        name=member.name,
        agent_type=member.agent_type,
        capabilities=tuple(
            [
                value if isinstance(value, Capability) else Capability(value)
                for value in member.capabilities
            ]
        ),
        status=status,
        node=entry.node,
        last_heartbeat=last_heartbeat,
        message_count=member.message_count,
        load=member.load,
        metadata=member.metadata,
    )
