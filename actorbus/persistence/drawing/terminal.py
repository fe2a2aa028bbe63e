"""The diagram as lines of text: one a message, indented under the one that caused it."""

from __future__ import annotations

from enum import StrEnum
from textwrap import wrap
from typing import TYPE_CHECKING, Final, NamedTuple

from actorbus.persistence.drawing.heading import summary, title
from actorbus.persistence.drawing.label import after, label, lane_name, standing
from actorbus.persistence.drawing.wording import cells, elided

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actorbus.persistence.drawing.sequence import Arrow, Diagram, End

NARROWEST: Final = 60
_DEEPEST: Final = 6
_WIDE: Final = 40
_LABEL: Final = 24
"""Cells that a label has at least."""


class Tone(StrEnum):
    """What a part of a line is, so that it can be coloured."""

    NAME = "name"
    DIM = "dim"
    TYPE = "type"
    WRONG = "wrong"
    WAITS = "waits"


class Part(NamedTuple):
    text: str
    tone: Tone


Line = list[Part]


def page(diagram: Diagram, width: int) -> Iterator[Line]:
    """The heading, then the ``lines``; nothing where there are none."""
    if diagram.arrows:
        yield [Part(title(diagram), Tone.TYPE)]
        for line in wrap(summary(diagram), max(width, NARROWEST)):
            yield [Part(line, Tone.DIM)]
        yield from lines(diagram, width)


def lines(diagram: Diagram, width: int) -> Iterator[Line]:
    """A line for each message, and one for each recipient of one to several.

    None is wider than `width` cells, but for a `width` below ``NARROWEST``. An arrow starts at
    its sender, so a reply comes from the one who was asked. Names that are too wide are elided
    in the middle.
    """
    for arrow in diagram.arrows:
        yield from _told(diagram, arrow, max(width, NARROWEST))


def _told(diagram: Diagram, arrow: Arrow, width: int) -> Iterator[Line]:
    lead = f"{after(arrow):>10}  {'  ' * min(arrow.depth, _DEEPEST)}"
    sign = f" {_sign(arrow)} "
    room = width - cells(lead) - len(sign) - _LABEL
    wide = max(_WIDE, width // 4)
    sender = lane_name(diagram.lanes[arrow.source], wide)
    sender, to = _shared(sender, _to(diagram, arrow, wide), room)
    margin = cells(lead) + cells(sender) + 1
    said = label(arrow, width - margin - len(sign) + 1 - cells(to) - 2)
    yield [
        Part(lead, Tone.DIM),
        Part(sender, Tone.NAME),
        Part(sign, Tone.DIM),
        Part(to, Tone.NAME),
        Part(f"  {said.what}", Tone.TYPE),
        Part(said.about, Tone.DIM),
        Part(said.trouble, Tone.WAITS if arrow.waits else Tone.WRONG),
    ]
    if len(arrow.ends) > 1:
        for end in arrow.ends:
            yield _recipient(diagram, end, end is arrow.ends[-1], margin, width)


def _recipient(diagram: Diagram, end: End, last: bool, margin: int, width: int) -> Line:
    sign = f"{'└' if last else '├'}─{'x' if end.wrong else '>'} "
    became = standing(end.status, end.reason)
    name = lane_name(diagram.lanes[end.lane], min(_WIDE, (width - margin - len(sign)) // 2))
    room = width - margin - len(sign) - cells(name) - 2
    return [
        Part(" " * margin + sign, Tone.DIM),
        Part(name, Tone.NAME),
        Part(f"  {elided(became, room)}" if became else "", _tone(end)),
    ]


def _tone(end: End) -> Tone:
    return Tone.WRONG if end.wrong else Tone.WAITS


def _sign(arrow: Arrow) -> str:
    return f"{'╌╌' if arrow.answer else '──'}{'x' if arrow.wrong else '>'}"


def _to(diagram: Diagram, arrow: Arrow, wide: int) -> str:
    if not arrow.ends:
        return "nobody"
    if len(arrow.ends) > 1:
        return f"{len(arrow.ends):,} agents"
    lane = arrow.ends[0].lane
    return "itself" if lane == arrow.source else lane_name(diagram.lanes[lane], wide)


def _shared(one: str, other: str, room: int) -> tuple[str, str]:
    """Both names in `room` cells: neither is cut while it takes less than half."""
    half = room // 2
    if cells(one) + cells(other) <= room:
        return one, other
    if cells(one) <= half:
        return one, elided(other, room - cells(one))
    if cells(other) <= half:
        return elided(one, room - cells(other)), other
    return elided(one, half), elided(other, half)
