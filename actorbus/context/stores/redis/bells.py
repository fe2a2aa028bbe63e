"""Doorbells over Redis: who is told that a namespace has changed, and how nothing is missed.

A namespace that somebody listens to has a channel, on which each commit tells its revision. That
is a hint and no more: every second, and after any trouble, the revisions themselves are looked
at, so a bell that was lost costs a second. One thread hears and looks; it starts with the first
listener, or the first key that is to expire.

Who writes rings its own bells before its commit returns. ``_Heard.lock`` is held while they
ring, so none rings twice for one revision; a ring must be quick and raise nothing.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from actorbus.errors import TransportUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from actorbus.redis_client import RedisServer

_SWEEP: Final = 1.0
_SHORTEST: Final = 0.01
_QUIET: Final = 2.0
"""Seconds without a word after which the server is asked for one, and then waited for."""
_LONGEST_PAUSE: Final = 1.0
_CONFIRMED_WITHIN: Final = 5.0
_CLOSED_WITHIN: Final = 10.0


class _Heard:
    """One namespace that is listened to."""

    __slots__ = ("lock", "owing", "revision", "rings", "users")

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a ring may read, and so come by here again
        self.rings: tuple[Callable[[], object], ...] = ()
        self.revision = -1
        """The latest that was rung for."""
        self.owing = False
        """Whether to ring although nothing is new: what was rung for may not have been read."""
        self.users = 0

    def ring(self) -> None:
        for ring in self.rings:
            ring()


class Bells:
    """The listeners of one store. Safe from any thread.

    Args:
        channel: the channel of a namespace.
        wake: a channel that nobody else has.
        revisions: looks up the revisions of namespaces.
        sweep: makes expire what is due, and returns seconds until more is (None: nothing will).
        failed: called, on the thread of the bells, with whatever went wrong; it goes on trying.
    """

    def __init__(
        self,
        server: RedisServer,
        *,
        channel: Callable[[str], str],
        wake: str,
        revisions: Callable[[Sequence[str]], Sequence[int]],
        sweep: Callable[[], float | None],
        failed: Callable[[Exception], object],
    ) -> None:
        self._server = server
        self._channel = channel
        self._wake = wake
        self._revisions = revisions
        self._sweep = sweep
        self._failed = failed
        self._changed = threading.Condition()
        self._heard: dict[str, _Heard] = {}
        self._by_channel: dict[str, str] = {}
        """Namespaces by their channels, as far as the server has confirmed that it tells us."""
        self._thread: threading.Thread | None = None
        self._awake = False
        """Whether our thread can be roused."""
        self._closing = False

    def start(self) -> None:
        """Begin to sweep. Idempotent."""
        with self._changed:
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(
                    target=self._run, name="actorbus-context", daemon=True
                )
                self._thread.start()

    def attend(self, namespace: str) -> None:
        """Hear of changes in a namespace from now on, until as many calls of ``leave``.

        Raises:
            TransportUnavailable: the server did not confirm it in time.
        """
        with self._changed:
            if self._closing:
                raise TransportUnavailable(f"{self._server.shown}: the store is closed")
            self._heard.setdefault(namespace, _Heard()).users += 1
        self.start()
        try:
            self._await_confirmation(self._channel(namespace))
        except BaseException:
            self.leave(namespace)
            raise

    def leave(self, namespace: str) -> None:
        with self._changed:
            heard = self._heard[namespace]
            heard.users -= 1
            if not heard.users:
                del self._heard[namespace]

    def add(self, namespace: str, ring: Callable[[], object], revision: int) -> int:
        """Ring for every change after the revision returned, which is `revision` or later."""
        heard = self._heard[namespace]
        with heard.lock:  # the last time here: a ring may wait for whoever called us
            heard.rings = (*heard.rings, ring)
            heard.revision = max(heard.revision, revision)
            return heard.revision

    def remove(self, namespace: str, ring: Callable[[], object]) -> None:
        heard = self._heard[namespace]
        with heard.lock:
            heard.rings = tuple(one for one in heard.rings if one is not ring)
        self.leave(namespace)

    def announce(self, namespace: str, revision: int) -> None:
        """The namespace is at `revision`: ring, where nobody did yet."""
        heard = self._heard.get(namespace)
        if heard is None:
            return
        with heard.lock:
            if revision > heard.revision:
                heard.revision = revision
                heard.ring()

    def owe(self, namespace: str) -> None:
        """Somebody could not read what the bell rang for: ring again with the next sweep."""
        heard = self._heard.get(namespace)
        if heard is not None:
            heard.owing = True

    def close(self) -> None:
        """Hear no more. Idempotent."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        if self._awake:
            with suppress(TransportUnavailable):  # then it wakes by itself, a second later
                self._rouse()
        thread.join(_CLOSED_WITHIN)

    def _await_confirmation(self, channel: str) -> None:
        with self._changed:
            if channel in self._by_channel:
                return
        self._rouse()
        with self._changed:
            confirmed = self._changed.wait_for(
                lambda: channel in self._by_channel or self._closing, _CONFIRMED_WITHIN
            )
        if not confirmed or self._closing:
            raise TransportUnavailable(f"{self._server.shown} did not confirm a subscription")

    def _rouse(self) -> None:
        """Our thread sleeps at its channel. Where it is not there yet, it needs no call."""
        with self._server.errors():
            self._server.client.publish(self._wake, "look")

    def _all(self) -> list[tuple[str, _Heard]]:
        with self._changed:
            return list(self._heard.items())

    # -- the thread

    def _run(self) -> None:
        pause = 0.0
        while not self._closing:
            began = time.monotonic()
            try:
                with self._server.errors():
                    self._hear()
            except Exception as error:  # noqa: BLE001 - told to `failed`, and watches go on
                self._failed(error)
            if time.monotonic() - began > _QUIET:
                pause = 0.0
            pause = min(max(0.02, 2 * pause), _LONGEST_PAUSE)
            with self._changed:
                self._changed.wait_for(lambda: self._closing, random.uniform(0, pause))

    def _hear(self) -> None:
        """Until the connection breaks. Whatever was missed before is found by the first look."""
        client: Any = self._server.subscriber()
        ear = client.pubsub()
        try:
            ear.subscribe(self._wake)
            self._awake = True
            for _, heard in self._all():
                heard.owing = True
            self._listen(ear)
        finally:
            self._awake = False
            with self._changed:
                self._by_channel = {}
            ear.close()
            client.close()

    def _listen(self, ear: Any) -> None:
        look_at = 0.0
        spoke, asked = time.monotonic(), False
        channels: dict[str, str] = {}
        while not self._closing:
            if self._follow(ear, channels):
                look_at = min(look_at, time.monotonic() + _SHORTEST)
            now = time.monotonic()
            if now >= look_at:
                look_at = now + self._look()
            until = min(look_at, spoke + _QUIET)
            message = ear.get_message(timeout=max(0.0, until - time.monotonic()))
            if message is not None:
                self._take(message, channels)
                spoke, asked = time.monotonic(), False
            elif time.monotonic() >= spoke + _QUIET:
                if asked:
                    raise TransportUnavailable(f"{self._server.shown} went silent")
                ear.ping()
                spoke, asked = time.monotonic(), True

    def _follow(self, ear: Any, channels: dict[str, str]) -> bool:
        """Subscribe to what is listened to and not to the rest; whether that was news."""
        with self._changed:
            wanted = {self._channel(namespace): namespace for namespace in self._heard}
            gone = channels.keys() - wanted.keys()
            new = wanted.keys() - channels.keys()
            for channel in gone:
                del channels[channel]
                self._by_channel.pop(channel, None)
        if gone:
            ear.unsubscribe(*gone)
        if new:
            ear.subscribe(*new)
            channels.update((channel, wanted[channel]) for channel in new)
        return bool(new)

    def _take(self, message: dict[str, Any], channels: dict[str, str]) -> None:
        channel = (message["channel"] or b"").decode()
        namespace = channels.get(channel)
        if namespace is None:
            return
        if message["type"] == "subscribe":
            with self._changed:
                self._by_channel[channel] = namespace
                self._changed.notify_all()
        elif message["type"] == "message" and message["data"].isdigit():
            self.announce(namespace, int(message["data"]))

    def _look(self) -> float:
        """Expire what is due, ring for what was not heard; seconds until the next look."""
        due = self._sweep()
        before = {namespace: heard.revision for namespace, heard in self._all()}
        for namespace, revision in zip(before, self._revisions(list(before)), strict=True):
            self._compare(namespace, revision, before[namespace])
        usual = _SWEEP * random.uniform(0.9, 1.1)
        return usual if due is None else max(_SHORTEST, min(usual, due))

    def _compare(self, namespace: str, revision: int, before: int) -> None:
        heard = self._heard.get(namespace)
        if heard is None:
            return
        with heard.lock:
            lost = revision < before  # the server has lost its tail, and counts on from there
            if heard.owing or lost or revision > heard.revision:
                heard.owing = False
                heard.revision = revision if lost else max(heard.revision, revision)
                heard.ring()
