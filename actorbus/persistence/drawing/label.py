"""What stands at an arrow: the payload's type, what else there is to say, what went wrong."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from actorbus.message import MessageKind, Priority, Status
from actorbus.persistence.drawing.wording import cells, duration, elided

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actorbus.message import Reason
    from actorbus.persistence.drawing.sequence import Arrow

_WIDE: Final = 48
_CAPS: Final = ((_WIDE, True), (24, True), (_WIDE, False), (32, False), (24, False), (16, False))
"""How wide a name may be, and whether the times are told: what is tried, best first."""
_LEAST: Final = 10
_TROUBLE: Final = 60
_GLUE: Final = " · "

OUTSIDE: Final = "outside"
"""The lane of all that is no agent."""


class Label(NamedTuple):
    """Three texts to be written one after the other, in weights of their own."""

    what: str
    about: str
    trouble: str

    def __str__(self) -> str:
        return "".join(self)


def label(arrow: Arrow, width: int) -> Label:
    """The label in at most `width` cells (20 or more).

    What is left out first is the middle of very long names, then the times, then all but what
    went wrong.
    """
    for cap, times in ((max(_WIDE, width // 4), True), *_CAPS):
        made = _label(arrow, cap, times=times)
        if cells(str(made)) <= width:
            return made
    made = _label(arrow, _LEAST, times=False)
    said = made.trouble or made.about
    return Label(made.what, "", elided(said, width - cells(made.what)))


def after(arrow: Arrow) -> str:
    """When it was sent, from when the first message was."""
    return f"{'+' if arrow.after >= 0 else ''}{duration(arrow.after)}"


def standing(status: Status, reason: Reason | None) -> str:
    """How one delivery ended, in a word or two; nothing for one that went well."""
    if status == Status.HANDLED:
        return ""
    if status == Status.ACCEPTED:
        return "not handled yet"
    return f"{status}: {reason}" if reason else str(status)


def lane_name(name: str | None, width: int) -> str:
    return OUTSIDE if name is None else elided(name, width)


def _label(arrow: Arrow, cap: int, *, times: bool) -> Label:
    about = [*_about(arrow, cap), *(_times(arrow) if times else ())]
    return Label(
        elided(arrow.view.type, cap),
        "".join(_GLUE + one for one in about),
        "".join(_GLUE + elided(one, _TROUBLE) for one in _trouble(arrow)),
    )


def _about(arrow: Arrow, cap: int) -> Iterator[str]:
    view = arrow.view
    if view.topic is not None:
        yield f"topic {elided(view.topic, cap)}"
    elif arrow.to_many:
        yield elided(view.kind, cap)
    if view.priority in (Priority.URGENT, Priority.HIGH):
        yield view.priority.name.lower()
    if view.attempts > 1:
        yield f"attempt {view.attempts}"


def _times(arrow: Arrow) -> Iterator[str]:
    """An answer is not handled: it has come as soon as it is sent."""
    view = arrow.view
    if arrow.answer:
        return
    if view.waited is not None:
        yield f"waited {duration(view.waited)}"
    if view.took is not None:
        yield f"took {duration(view.took)}"


def _trouble(arrow: Arrow) -> Iterator[str]:
    view = arrow.view
    if view.kind == MessageKind.ERROR:
        yield "error"
    if arrow.to_many and arrow.waits:
        yield "handled by nobody yet"
        return
    if not (arrow.to_many and arrow.ends):
        if said := standing(view.status, view.reason):
            yield said
        return
    worse = Counter(said for end in arrow.ends if (said := standing(end.status, end.reason)))
    for said, count in worse.most_common():
        yield said if count == len(arrow.ends) else f"{count} of {len(arrow.ends)} {said}"
