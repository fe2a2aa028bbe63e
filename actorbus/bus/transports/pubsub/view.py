"""Who is on which other node, as far as this node has heard. Pure; its owner holds a lock."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class _Peer:
    heard_at: float
    revision: int = -1
    names: set[str] = field(default_factory=set)
    coming: set[str] = field(default_factory=set)


class View:
    """Every change of a node's agents has the next revision; after a gap its table is asked for.

    Methods that hear of a change return False where the table is to be asked for.
    """

    def __init__(self) -> None:
        self._peers: dict[str, _Peer] = {}
        self._nodes: dict[str, str] = {}

    def node_of(self, name: str) -> str | None:
        return self._nodes.get(name)

    def names(self) -> list[str]:
        return list(self._nodes)

    def peers(self) -> list[str]:
        return list(self._peers)

    def heard(self, node: str, now: float) -> None:
        self._peers.setdefault(node, _Peer(now)).heard_at = now

    def knows(self, node: str) -> bool:
        """Whether its table has come."""
        peer = self._peers.get(node)
        return peer is not None and peer.revision >= 0

    def is_at(self, node: str, revision: int) -> bool:
        peer = self._peers.get(node)
        return peer is not None and peer.revision == revision

    def up(self, node: str, revision: int, name: str) -> bool:
        if not self._step(node, revision):
            return False
        self._peers[node].names.add(name)
        self._nodes[name] = node
        return True

    def down(self, node: str, revision: int, name: str) -> bool:
        if not self._step(node, revision):
            return False
        self._peers[node].names.discard(name)
        self._release(node, name)
        return True

    def table(self, node: str, revision: int, part: int, parts: int, names: list[str]) -> None:
        """One part of a node's table; with the last one it counts."""
        peer = self._peers[node]
        if part == 0:
            peer.coming = set()
        peer.coming.update(names)
        if part + 1 < parts:
            return
        for name in peer.names - peer.coming:
            self._release(node, name)
        peer.names, peer.coming, peer.revision = peer.coming, set(), revision
        self._nodes.update(dict.fromkeys(peer.names, node))

    def forget(self, node: str) -> None:
        peer = self._peers.pop(node, None)
        for name in peer.names if peer is not None else ():
            self._release(node, name)

    def silent(self, since: float) -> list[str]:
        """Nodes that were not heard after `since`."""
        return [node for node, peer in self._peers.items() if peer.heard_at < since]

    def _step(self, node: str, revision: int) -> bool:
        peer = self._peers[node]
        if peer.revision < 0 or revision != peer.revision + 1:
            return False
        peer.revision = revision
        return True

    def _release(self, node: str, name: str) -> None:
        if self._nodes.get(name) == node:
            del self._nodes[name]
