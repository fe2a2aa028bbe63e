"""Sealing a blob, and opening it: the format, and each ground to refuse.

::

    0xC1, version, signature (64), then what is signed, with the domain before it:
    time (8), run (8), number (8), queue (1), lengths (2), node, recipient, blob

Numbers are big-endian. *Time* is the server's, in milliseconds, as its sender knows it; of a
delayed message, that at which it is due. A *run* is one life of a signer, at random, and it
numbers what it seals. *Queue* is the level, and whether it was delayed. The *domain* names this
format and the deployment, so that no signature of ours means anything elsewhere.
"""

from __future__ import annotations

import secrets
import struct
import threading
from collections import OrderedDict
from enum import StrEnum
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple

from actorbus.codec.signing.replays import Replays
from actorbus.errors import Undecodable, Untrusted, listed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

    from actorbus.message import Message

WINDOW: Final = 86_400.0
"""Seconds: longer than a message waits for a slow agent, or one whose node is away."""
NODE_HEADER: Final = "actorbus-node"
"""The header that names the node which vouches for a message; set by transports alone."""

_MARK: Final = 0xC1
"""The one byte that msgpack never uses."""
_VERSION: Final = 1
_OUTER: Final = struct.Struct(">BB64s")
_INNER: Final = struct.Struct(">Q8sQBBB")
_DELAYED: Final = 0x80
_NAME_LIMIT: Final = 255
SEAL_LIMIT: Final = _OUTER.size + _INNER.size + 2 * _NAME_LIMIT
"""Bytes that a seal may add."""
_BACKWARDS: Final = 5_000
"""Milliseconds that a signer's time may go back before it begins a new run."""
_STAYS: Final = 100_000
"""Recipients whose last new beginning is known."""
_LEEWAY: Final = 60.0
"""Seconds that a sender's idea of the server's time may be ahead."""


class Distrust(StrEnum):
    """Why a blob was not believed."""

    UNSIGNED = "unsigned"
    UNKNOWN_NODE = "unknown-node"
    FORGED = "forged"
    MISPLACED = "misplaced"
    TOO_OLD = "too-old"
    AHEAD = "ahead"
    REPLAYED = "replayed"


class Opened(NamedTuple):
    """A blob, and the name of the node that vouches for it; None: nobody does."""

    node: str | None
    blob: bytes


def is_sealed(blob: bytes) -> bool:
    """Whether this is a seal, be it good or bad; a plain blob of ours never is."""
    return blob[:1] == b"\xc1"


def vouched(message: Message[object], node: str | None) -> Message[object]:
    """`message` with the header that says who vouches for it, whatever its sender wrote there.

    For transports, on whatever comes in: a policy reads the header.
    """
    headers = {key: value for key, value in message.headers.items() if key != NODE_HEADER}
    if node is not None:
        headers[NODE_HEADER] = node
    return message.copy(headers=headers or None)


class Signer:
    """Seals in the name of a node. Thread-safe.

    Args:
        key: the private key of that node.
        namespace: the deployment: what is sealed in one is refused in others.
    """

    def __init__(self, key: Ed25519PrivateKey, node: str, *, namespace: str = "actorbus") -> None:
        self.node = node
        self._key = key
        self._name = _name(node)
        self._domain = _domain(namespace)
        self._lock = threading.Lock()
        self._run = secrets.token_bytes(8)
        self._number = 0
        self._latest = 0

    def seal(
        self, recipient: str, blob: bytes, now: float, *, level: int = 0, delay: float = 0.0
    ) -> bytes:
        """`blob` for `recipient`. Call it in the order in which its queue is to be filled.

        Args:
            recipient: the inbox, topic or channel where it will be found; at most 255 bytes.
            now: the server's time, in seconds since the epoch, as well as it is known.
            level: which of the recipient's queues, up to 127.
            delay: seconds until it is due.
        """
        name = _name(recipient)
        at, run, number = self._stamp(int(now * 1_000))
        queue = level | _DELAYED if delay > 0 else level
        due = at + int(delay * 1_000)
        inner = _INNER.pack(due, run, number, queue, len(self._name), len(name))
        signed = b"".join((inner, self._name, name, blob))
        return _OUTER.pack(_MARK, _VERSION, self._key.sign(self._domain + signed)) + signed

    def _stamp(self, at: int) -> tuple[int, bytes, int]:
        """Time never goes back in a run: the order of what it sealed is in time and number."""
        with self._lock:
            if at < self._latest - _BACKWARDS:
                self._run = secrets.token_bytes(8)
                self._latest = at
            self._latest = max(self._latest, at)
            self._number += 1
            return self._latest, self._run, self._number


class Verifier:
    """Opens what trusted nodes have sealed, and refuses all else. Thread-safe.

    Args:
        trusted: the public keys of each node.
        limit: the most bytes of a blob.
        namespace: the deployment.
        window: seconds that a message may be old.
    """

    def __init__(
        self,
        trusted: Mapping[str, Sequence[Ed25519PublicKey]],
        *,
        limit: int,
        namespace: str = "actorbus",
        window: float = WINDOW,
        replays: Replays | None = None,
    ) -> None:
        self._trusted = {_name(node): (node, tuple(keys)) for node, keys in trusted.items()}
        self._limit = limit
        self._domain = _domain(namespace)
        self._window = window
        self._replays = Replays() if replays is None else replays
        # Not a dict: what is first in one is found behind all that was taken out before it.
        self._stays: OrderedDict[bytes, int] = OrderedDict()
        self._beginnings = count(1)
        self._lock = threading.Lock()

    def forget(self, recipient: str) -> None:
        """Begin anew with a recipient, as its log was another reader's in between.

        What this one read and did not acknowledge may rightly come again, from then on.
        """
        name = _name(recipient)
        with self._lock:
            self._stays.pop(name, None)
            self._stays[name] = next(self._beginnings)
            if len(self._stays) > _STAYS:
                self._stays.popitem(last=False)

    def open(
        self, recipient: str, sealed: bytes, now: float, *, level: int = 0, again: bool = False
    ) -> Opened:
        """The blob, and who sealed it for here.

        Args:
            recipient: where it was found, and `level`, as its signer said them.
            now: the server's time, in seconds since the epoch.
            again: this reader has read it before, from this very place in the log: neither
                its age nor its having been here counts against it.

        Raises:
            Undecodable: too large, or the shape is not that of a seal.
            Untrusted: ``why`` is one of ``Distrust``.
        """
        if len(sealed) > self._limit + SEAL_LIMIT:
            raise Undecodable(f"{len(sealed):,} bytes, the limit is {self._limit + SEAL_LIMIT:,}")
        if not is_sealed(sealed):
            raise Untrusted(Distrust.UNSIGNED, "it is not signed, and here everything must be")
        seal = read_seal(sealed)
        node = self._vouching(seal, sealed)
        self._check_place(node, seal, recipient, level)
        if not again:
            self._check_fresh(node, seal, now)
        return Opened(node, seal.blob)

    def _vouching(self, seal: Seal, sealed: bytes) -> str:
        from cryptography.exceptions import InvalidSignature

        if seal.node not in self._trusted:
            known = listed(name for name, _ in self._trusted.values())
            raise Untrusted(
                Distrust.UNKNOWN_NODE,
                f"node {_shown(seal.node)} is not trusted here; trusted: {known}",
            )
        node, keys = self._trusted[seal.node]
        signed = self._domain + sealed[_OUTER.size :]
        for key in keys:
            try:
                key.verify(seal.signature, signed)
            except InvalidSignature:
                continue
            return node
        raise Untrusted(
            Distrust.FORGED,
            f"the signature is not that of node {node!r} in this deployment: it was changed on"
            " its way, or somebody else made it",
            node,
        )

    def _check_place(self, node: str, seal: Seal, recipient: str, level: int) -> None:
        if seal.recipient != _name(recipient) or seal.queue & ~_DELAYED != level:
            raise Untrusted(
                Distrust.MISPLACED,
                f"node {node!r} sent it to {_shown(seal.recipient)} at level"
                f" {seal.queue & ~_DELAYED}, and it was found at {recipient!r}, level {level}",
                node,
            )

    def _check_fresh(self, node: str, seal: Seal, now: float) -> None:
        age = now - seal.at / 1_000
        if age > self._window:
            raise Untrusted(
                Distrust.TOO_OLD,
                f"node {node!r} sealed it {age:,.0f} s ago, and {self._window:,.0f} s are"
                " allowed (replay_window)",
                node,
            )
        if age < -_LEEWAY:
            raise Untrusted(
                Distrust.AHEAD,
                f"node {node!r} sealed it for {-age:,.0f} s from now: its clock is ahead of the"
                " server's, or it was delivered before it was due",
                node,
            )
        stay = self._stays.get(seal.recipient, 0)
        queue = (seal.node, seal.run, seal.recipient, seal.queue, stay)
        if not self._replays.is_new(queue, seal.at << 64 | seal.number):
            raise Untrusted(
                Distrust.REPLAYED, f"what node {node!r} sent once has come before", node
            )


class Seal(NamedTuple):
    """The parts of what is sealed, none of them believed."""

    signature: bytes
    at: int
    run: bytes
    number: int
    queue: int
    node: bytes
    recipient: bytes
    blob: bytes


def read_seal(sealed: bytes) -> Seal:
    """The parts.

    Raises:
        Undecodable: the shape is not that of a seal.
    """
    if len(sealed) < _OUTER.size + _INNER.size:
        raise Undecodable("a seal that is cut short")
    _, version, signature = _OUTER.unpack_from(sealed)
    if version != _VERSION:
        raise Undecodable(f"seal version {version}, and this node reads {_VERSION}")
    at, run, number, queue, node_size, recipient_size = _INNER.unpack_from(sealed, _OUTER.size)
    names = _OUTER.size + _INNER.size
    middle, end = names + node_size, names + node_size + recipient_size
    if end > len(sealed):
        raise Undecodable("a seal that is cut short")
    return Seal(
        signature, at, run, number, queue, sealed[names:middle], sealed[middle:end], sealed[end:]
    )


def _name(name: str) -> bytes:
    data = name.encode()
    if len(data) > _NAME_LIMIT:
        raise ValueError(f"a name of {len(data):,} bytes cannot be sealed, at most {_NAME_LIMIT}")
    return data


def _domain(namespace: str) -> bytes:
    name = namespace.encode()
    return b"actorbus envelope 1\0" + struct.pack(">H", len(name)) + name


def _shown(name: bytes) -> str:
    return ascii(name.decode(errors="replace"))
