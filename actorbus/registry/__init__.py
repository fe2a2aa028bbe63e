"""Who is alive, what they can do, and which of them is the least busy."""

from actorbus.registry.directory import ChangeKind, Directory, DirectoryChange
from actorbus.registry.entry import AgentInfo, AgentStatus, Capability, Entry, Member
from actorbus.registry.registry import AsyncRegistry, Registry
from actorbus.registry.watch import NodeInfo, RegistryChange, RegistryLagged, Watch

__all__ = [
    "AgentInfo",
    "AgentStatus",
    "AsyncRegistry",
    "Capability",
    "ChangeKind",
    "Directory",
    "DirectoryChange",
    "Entry",
    "Member",
    "NodeInfo",
    "Registry",
    "RegistryChange",
    "RegistryLagged",
    "Watch",
]
