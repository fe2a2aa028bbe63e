"""Telling a node at once what is on its way to its inbox: a hint, whatever becomes of it.

Written and forgotten: no answer is waited for. Whoever hears it says so along with its next
request, and then the note need not go into the inbox at all; else it does, some milliseconds
later. So a question and its answer, one after the other, take one script instead of two, and
the answer no place in a log.

That pays only where one is heard and thanked for before the next. Who has not said of the last
one that it was heard is told no more for a while: many answers at a time go together.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from actorbus.bus.transports.redis.items import ID_SIZE
from actorbus.errors import TransportUnavailable, Undecodable
from actorbus.redis_client import decoded, encoded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from actorbus.bus.transports.redis.log import InboxLog
    from actorbus.redis_client import Line

AHEAD: Final = b"re "
"""What such a ring begins with. The node that tells, its id of the note, and the note follow."""
HEARD: Final = b"ok "
"""What a ring begins with that says that some notes were heard. Their ids follow."""
_LARGEST: Final = 16_384
"""Bytes that fit the buffers of any kernel."""
_UNREAD: Final = 16
"""Answers after which some are read: that costs a call of the kernel."""
_MOST: Final = 256
"""Answers that are owed by a server which does not answer."""
_IN_VAIN: Final = 16
"""Hints in a row that nobody heard, after which the server may be a master no more."""
_PAUSE: Final = 0.05
"""Seconds for which nothing more is told after what was not said to be heard."""
_READERS: Final = 10_000
"""Inboxes of which the last hint is known."""


def read_ahead(what: bytes) -> tuple[str, bytes, bytes]:
    """The node that tells, the id of its note, and the note, after ``AHEAD``.

    Raises:
        Undecodable: it is none of ours.
    """
    node, _, rest = what.partition(b" ")
    if not node.isascii() or len(rest) <= ID_SIZE:
        raise Undecodable("no note that is on its way")
    return decoded(node), rest[:ID_SIZE], rest[ID_SIZE:]


def read_heard(what: bytes) -> list[bytes]:
    """The ids after ``HEARD``."""
    return [what[at : at + ID_SIZE] for at in range(0, len(what), ID_SIZE)]


class Herald:
    """Safe from any thread; who finds another at it does without."""

    def __init__(
        self, log: InboxLog, node: str, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._begins = AHEAD + encoded(node).encode() + b" "
        self._dial = log.dial()
        self._taken = threading.Lock()
        self._now = monotonic
        self._owed = 0
        self._in_vain = 0
        self._last: dict[str, tuple[bytes, float]] = {}
        """What each inbox was last told of, and when."""
        self._unheard: dict[bytes, None] = {}
        """Those of them that are not said to be heard."""
        self.wanted = False
        """Whether it is closed, and somebody would have used it."""

    def open(self) -> None:
        """Takes round trips."""
        with self._taken:
            self.wanted = False
            if self._dial.line is None:
                self._owed = self._in_vain = 0
                self._dial.open()

    def tell(self, node: str, inbox: str, note_id: bytes, note: bytes) -> bool:
        """Whether `node` may have been told of what will be in its `inbox`."""
        if len(note) > _LARGEST or not self._taken.acquire(blocking=False):
            return False
        try:
            line = self._dial.line
            if line is None:
                self.wanted = self._dial.may_be_had
                return False
            if not self._may_tell(inbox, note_id):
                return False
            if self._owed >= _UNREAD:
                self._read_answers(line)
            self._owed += 1
            channel = self._log.bell(self._log.tag(inbox), node)
            if line.send("PUBLISH", channel, self._begins + note_id + note):
                return True
            self._dial.hang_up()
        except TransportUnavailable:
            self._dial.hang_up()
        finally:
            self._taken.release()
        return False

    def heard(self, ids: Iterable[bytes]) -> None:
        """Their readers say so."""
        for note_id in ids:
            self._unheard.pop(note_id, None)

    def close(self) -> None:
        with self._taken:
            self._dial.hang_up()

    def _may_tell(self, inbox: str, note_id: bytes) -> bool:
        """Whether the last hint there was heard, or is long ago. Then this is the last."""
        now = self._now()
        last = self._last.get(inbox)
        if last is not None:
            last_id, at = last
            if last_id in self._unheard and now < at + _PAUSE:
                return False
            self._unheard.pop(last_id, None)
        elif len(self._last) >= _READERS:
            self._last.clear()
            self._unheard.clear()
        self._last[inbox] = note_id, now
        self._unheard[note_id] = None
        return True

    def _read_answers(self, line: Line) -> None:
        while self._owed:
            answer = line.look()
            if answer is None:
                break
            self._owed -= 1
            if isinstance(answer, Exception):
                raise TransportUnavailable(str(answer))
            self._in_vain = 0 if answer else self._in_vain + 1
        if self._owed >= _MOST or self._in_vain >= _IN_VAIN:
            raise TransportUnavailable("the server does not answer, or nobody hears it")
