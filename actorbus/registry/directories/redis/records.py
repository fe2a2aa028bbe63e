"""What is written of an agent, and read: see ``scripts/table.lua``.

Agents of one class have most in common: their type, capabilities and metadata. That is their
*kind*, written once for all of them on a node. What is an agent's own are its *figures*.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from actorbus.errors import InvalidArgument, InvalidName, Undecodable
from actorbus.registry.entry import AgentStatus, Capability, capability_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from actorbus.codec import Codec
    from actorbus.registry.entry import Member

_WORTH: Final = 0.1
_WORTH_MESSAGES: Final = 5


class Figures(NamedTuple):
    """How an agent stands."""

    status: AgentStatus
    load: int
    message_count: int

    @classmethod
    def of(cls, member: Member) -> Figures:
        # The count last: of one that is found idle, it is what it stays.
        return cls(member.status, member.load, member.message_count)

    @property
    def at_rest(self) -> bool:
        """Whether they stay so until the agent goes to work again."""
        return self.status is AgentStatus.IDLE and not self.load

    @classmethod
    def read(cls, words: Sequence[bytes]) -> Figures:
        status, load, count = words
        return cls(AgentStatus(status.decode()), int(load), int(count))

    def __str__(self) -> str:
        return f"{self.status.value} {self.load} {self.message_count}"


def worth_telling(before: Figures, now: Figures) -> bool:
    """Whether others would decide otherwise if they knew: another status, or a load that is
    more than a tenth or 5 messages off."""
    if before == now:
        return False
    off = abs(now.load - before.load)
    return (
        now.status != before.status
        or off > _WORTH_MESSAGES
        or off > _WORTH * before.load
        or now.message_count - before.message_count > _WORTH * before.message_count
    )


class Record(NamedTuple):
    """One agent in the table. ``id`` is that of the change by which it joined."""

    id: int
    token: str
    number: int
    kind: int
    figures: Figures

    @classmethod
    def read(cls, data: bytes) -> Record:
        """
        Raises:
            Undecodable: that is no record.
        """
        try:
            found, token, number, kind, *figures = data.split(b" ")
            return cls(int(found), token.decode(), int(number), int(kind), Figures.read(figures))
        except ValueError:
            raise Undecodable("not an agent's record in the registry") from None

    def is_same(self, token: str, number: int) -> bool:
        """Whether it is of the agent that has this number there."""
        return self.number == number and self.token == token


class Kind:
    """What agents of one class have in common. Kept as long as somebody is of that kind."""

    __slots__ = ("__weakref__", "agent_type", "capabilities", "metadata", "names")

    def __init__(
        self,
        agent_type: str,
        capabilities: tuple[str | Capability, ...],
        metadata: Mapping[str, Any],
    ) -> None:
        self.agent_type = agent_type
        self.capabilities = capabilities
        self.metadata = metadata
        self.names = capability_names(capabilities)


def written(member: Member, codec: Codec) -> bytes:
    """The kind of a member.

    Raises:
        UnsupportedPayload, PayloadTooLarge: its metadata or a schema cannot be carried.
    """
    capabilities = [
        [one.name, one.version, one.schema] if isinstance(one, Capability) else one
        for one in member.capabilities
    ]
    return codec.encode_payload([member.agent_type, capabilities, dict(member.metadata)])


def kind_in(data: bytes, codec: Codec) -> Kind:
    """
    Raises:
        Undecodable: that is no kind.
    """
    match codec.decode_payload(data):
        case [str(agent_type), [*capabilities], dict(metadata)]:
            try:
                return Kind(agent_type, tuple(map(_capability, capabilities)), metadata)
            except (InvalidArgument, InvalidName) as error:
                raise Undecodable(f"a kind of agents in the registry: {error}") from None
    raise Undecodable("not a kind of agents in the registry")


def _capability(told: object) -> str | Capability:
    match told:
        case str():
            return told
        case [str(name), str(version), None | dict() as schema]:
            return Capability(name, version, schema)
    raise Undecodable("not a capability in the registry")


class RemoteMember:
    """An agent of another node, as it last told of itself."""

    __slots__ = ("_kind", "load", "message_count", "name", "status")

    def __init__(self, name: str, kind: Kind, figures: Figures) -> None:
        self.name = name
        self._kind = kind
        self.take(figures)

    def take(self, figures: Figures) -> None:
        self.status, self.load, self.message_count = figures

    def when_stirred(self, tell: Callable[[Member], object]) -> bool:
        return False

    @property
    def agent_type(self) -> str:
        return self._kind.agent_type

    @property
    def capabilities(self) -> tuple[str | Capability, ...]:
        return self._kind.capabilities

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self._kind.metadata

    def __repr__(self) -> str:
        return f"<RemoteMember {self.name!r}>"
