"""The first thing in which a replay differs from its record."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from actorbus.message import format_id
from actorbus.replay.said import canonical, said

if TYPE_CHECKING:
    from collections.abc import Iterator

    from actorbus.persistence.answers import MessageView
    from actorbus.replay.said import Said

_MOST_LINES: Final = 24
_WIDEST: Final = 160


class Difference(StrEnum):
    """In what a replay can differ."""

    DIFFERENT = "different"
    """Another message was sent than the record has."""
    UNEXPECTED = "unexpected"
    """A message was sent that the record does not have."""
    MISSING = "missing"
    """A handler ended without sending a message that the record has."""
    ENDING = "ending"
    """A handling ended otherwise than the record has it."""
    UNHANDLED = "unhandled"
    """A message was not handled that was, in the record."""
    UNANSWERED = "unanswered"
    """Somebody outside was asked something that history has no answer to."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where a replay first differs, and in what. ``str()`` of it is for people."""

    difference: Difference
    expected: Said | None
    """What the record has."""
    got: Said | None
    """What happened instead."""
    position: int
    """Which of the recorded messages, from 1: the expected one, else the one in hand."""
    total: int
    chain: tuple[MessageView, ...]
    """The recorded messages that led there, the first cause first; the last was in hand."""
    note: str = ""
    """What more there is to say, such as how it ended."""

    def as_json(self) -> dict[str, Any]:
        return {
            "difference": str(self.difference),
            "position": self.position,
            "total": self.total,
            "expected": None if self.expected is None else self.expected.as_json(),
            "got": None if self.got is None else self.got.as_json(),
            "note": self.note,
            "chain": [format_id(view.id) for view in self.chain],
        }

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"diverged at message {self.position} of {self.total}: {self._sentence()}"
        if self.note:
            yield f"  {self.note}"
        yield f"  expected  {self.expected or 'nothing'}"
        yield f"  got       {self.got or 'nothing'}"
        yield from self._payloads()
        if self.chain:
            yield "  caused by"
            for depth, view in enumerate(self.chain[-_MOST_LINES:]):
                yield f"    {'  ' * depth}{said(view)}  {_cut(canonical(view.payload))}"

    def _sentence(self) -> str:
        match self.difference:
            case Difference.DIFFERENT:
                return "another message was sent"
            case Difference.UNEXPECTED:
                return "a message was sent that the record does not have"
            case Difference.MISSING:
                return "a message of the record was not sent"
            case Difference.ENDING:
                return "the message ended otherwise"
            case Difference.UNHANDLED:
                return "a message was not handled"
            case Difference.UNANSWERED:
                return "history has no answer to this request"

    def _payloads(self) -> Iterator[str]:
        """The payloads, or what differs between the two."""
        sides = [None if one is None else _pretty(one.payload) for one in (self.expected, self.got)]
        expected, got = sides
        if expected is None and got is None:
            return
        if expected is None or got is None:
            lines = [f"  {line}" for line in expected or got or ()]
        elif expected == got:
            return
        else:
            lines = [line for line in difflib.ndiff(expected, got) if not line.startswith("?")]
        yield "  payload"
        for line in lines[:_MOST_LINES]:
            yield f"    {_cut(line)}"
        if len(lines) > _MOST_LINES:
            yield f"    ... and {len(lines) - _MOST_LINES:,} lines more"


def _pretty(value: Any) -> list[str]:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).splitlines()


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"
