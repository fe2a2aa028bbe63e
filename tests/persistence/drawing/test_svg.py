from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorbus.message import format_id
from actorbus.persistence.drawing import draw
from actorbus.persistence.drawing.wording import cells

GOLDEN = Path(__file__).parent / "golden" / "conversation.svg"

_SVG = "{http://www.w3.org/2000/svg}"
_ELEMENTS = frozenset(
    {"svg", "title", "desc", "style", "rect", "text", "tspan", "g", "path", "circle"}
)
_TEXT_HEIGHT = 12
_PITCH = 6.63


def _parsed(views: Any) -> ElementTree.Element:
    return ElementTree.fromstring(draw(views, "svg"))  # noqa: S314 - our own, that is the test


def _messages(root: ElementTree.Element) -> list[ElementTree.Element]:
    return [group for group in root.iter(f"{_SVG}g") if "data-id" in group.attrib]


def _number(element: ElementTree.Element, name: str) -> float:
    return float(element.attrib[name])


@dataclass
class _Walk:
    """The corners of a path, from its own little language."""

    data: str

    def corners(self) -> list[tuple[float, float]]:
        x = y = 0.0
        found = []
        for command, arguments in re.findall(r"([MHVhvlm])([-\d. ]*)", self.data):
            numbers = [float(one) for one in re.findall(r"-?[\d.]+", arguments)]
            match command:
                case "M":
                    x, y = numbers
                case "m" | "l":
                    x, y = x + numbers[0], y + numbers[1]
                case "H":
                    x = numbers[0]
                case "V":
                    y = numbers[0]
                case "h":
                    x += numbers[0]
                case "v":
                    y += numbers[0]
            found.append((x, y))
        return found


def test_a_small_conversation_is_drawn_as_ever(small: Any) -> None:
    """Where it is meant to look otherwise, look at it, then write the file anew."""
    assert draw(small, "svg") == GOLDEN.read_text(encoding="utf-8")


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_every_message_is_drawn_once_whatever_it_holds(
    data: st.DataObject, conversations: Any
) -> None:
    views = data.draw(conversations)

    root = _parsed(views)

    drawn = [group.attrib["data-id"] for group in _messages(root)]
    assert sorted(drawn) == sorted(format_id(view.id) for view in views)


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_nothing_in_it_is_obeyed(data: st.DataObject, conversations: Any) -> None:
    views = data.draw(conversations)

    root = _parsed(views)

    for element in root.iter():
        assert element.tag.removeprefix(_SVG) in _ELEMENTS
        assert not any(name.startswith("on") or "href" in name for name in element.attrib)
        assert "\n" in (text := element.text or "") or not text or text.isprintable()
    (style,) = root.iter(f"{_SVG}style")
    assert "url(" not in (style.text or "")
    assert "@import" not in (style.text or "")


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_labels_keep_clear_of_one_another_and_of_the_heads(
    data: st.DataObject, conversations: Any
) -> None:
    root = _parsed(data.draw(conversations))

    labels = sorted(
        _number(text, "y") for text in root.iter(f"{_SVG}text") if text.get("class") == "label"
    )
    bands = [rect for rect in root.iter(f"{_SVG}rect") if rect.get("class") == "band"]
    assert all(lower - upper >= _TEXT_HEIGHT for upper, lower in pairwise(labels))
    for band in bands:
        top, bottom = _number(band, "y"), _number(band, "y") + _number(band, "height")
        assert not any(top < y + 3 and y - _TEXT_HEIGHT < bottom for y in labels)


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_all_of_it_is_on_the_canvas(data: st.DataObject, conversations: Any) -> None:
    root = _parsed(data.draw(conversations))

    width, height = _number(root, "width"), _number(root, "height")
    assert root.attrib["viewBox"] == f"0 0 {root.attrib['width']} {root.attrib['height']}"
    for path in root.iter(f"{_SVG}path"):
        for x, y in _Walk(path.attrib["d"]).corners():
            assert 0 <= x <= width
            assert 0 <= y <= height
    for rect in root.iter(f"{_SVG}rect"):
        x, y = float(rect.get("x", 0)), float(rect.get("y", 0))
        assert 0 <= x <= x + _number(rect, "width") <= width
        assert 0 <= y < y + _number(rect, "height") <= height
    for text in root.iter(f"{_SVG}text"):
        long = cells("".join(text.itertext())) * _PITCH
        if text.get("class") == "label":
            assert 0 <= _number(text, "x") <= _number(text, "x") + long <= width + 1
        elif text.get("class") == "after":
            assert long <= _number(text, "x")


def _arrow(root: ElementTree.Element, number: int) -> ElementTree.Element:
    return _messages(root)[number]


def _lanes(root: ElementTree.Element) -> list[float]:
    lifelines = [path for path in root.iter(f"{_SVG}path") if path.get("class") == "life"]
    return [_Walk(path.attrib["d"]).corners()[0][0] for path in lifelines]


def _parts(group: ElementTree.Element, kind: str) -> list[list[tuple[float, float]]]:
    paths = group.findall(f"{_SVG}path[@class='{kind}']")
    return [_Walk(path.attrib["d"]).corners() for path in paths]


def test_an_arrow_leads_from_lane_to_lane_with_its_head_at_the_recipient(small: Any) -> None:
    root = _parsed(small)
    outside, boss, *_ = _lanes(root)

    ((start, end),) = _parts(_arrow(root, 0), "line")
    ((tip, *_),) = _parts(_arrow(root, 0), "tip")
    ((back_tip, *_),) = _parts(_arrow(root, 2), "tip")

    assert (start[0], end[0]) == (outside, boss)
    assert tip[0] == back_tip[0] == boss
    assert "answer" in _arrow(root, 2).attrib["class"]


def test_a_broadcast_has_a_head_or_a_cross_at_every_recipient(small: Any) -> None:
    root = _parsed(small)
    _, boss, counter, spare, _ = _lanes(root)

    ((start, end),) = _parts(_arrow(root, 4), "line")
    ((tip, *_),) = _parts(_arrow(root, 4), "tip")
    ((corner, opposite, *_),) = _parts(_arrow(root, 4), "cross")

    crosses = (corner[0] + opposite[0]) / 2
    assert (start[0], end[0]) == (boss, crosses)
    assert tip[0] == counter
    assert counter < crosses < spare


def test_a_message_to_oneself_loops(small: Any) -> None:
    root = _parsed(small)

    (loop,) = _parts(_arrow(root, 3), "line")

    assert loop[0][0] == loop[-1][0] == _lanes(root)[1]
    assert loop[0][1] < loop[-1][1]


def test_a_dead_letter_ends_in_a_cross_with_its_reason(small: Any) -> None:
    letter = _arrow(_parsed(small), 7)

    trouble = letter.find(f".//{_SVG}tspan[@class='trouble']")

    assert _parts(letter, "cross")
    assert not _parts(letter, "tip")
    assert trouble is not None
    assert trouble.text == " · dead: no-such-agent"


def test_every_handling_is_a_bar(small: Any) -> None:
    bars = [one for one in _parsed(small).iter(f"{_SVG}rect") if "bar" in one.get("class", "")]

    assert len(bars) == 6
    assert sum("wrong" in one.attrib["class"] for one in bars) == 1


def test_it_tells_times_and_more_in_tooltips(small: Any) -> None:
    first = _arrow(_parsed(small), 0)

    label = "".join(first.findall(f"{_SVG}text")[1].itertext())
    tooltip = first.findtext(f"{_SVG}title") or ""

    assert label == "Text · waited 80 µs · took 8.92 ms"
    assert "outside → boss" in tooltip
    assert '{"body": "to be"}' in tooltip
    assert format_id(small[0].id) in tooltip


def test_lane_heads_come_again_within_a_screen_or_two(long: Any) -> None:
    root = _parsed(long)

    tops = [_number(one, "y") for one in root.iter(f"{_SVG}rect") if one.get("class") == "band"]

    assert len(tops) >= 6
    assert all(lower - upper < 1_600 for upper, lower in pairwise(tops))
    assert len(_messages(root)) == 200


def test_it_can_be_read_aloud_and_in_the_dark(small: Any) -> None:
    root = _parsed(small)

    assert root.attrib["role"] == "img"
    assert root.attrib["aria-labelledby"] == "title desc"
    assert root.findtext(f"{_SVG}title") == f"Conversation {format_id(small[0].id)}"
    assert (root.findtext(f"{_SVG}desc") or "").startswith("11 messages, 4 agents, from 2026-03-01")
    assert "@media (prefers-color-scheme:dark)" in (root.findtext(f"{_SVG}style") or "")


@pytest.mark.parametrize("name", ["A" * 10_240, "<b>\u202e\x1b" * 1_000, "日" * 5_000])
def test_a_huge_name_takes_no_more_room_than_a_head(view: Any, name: str) -> None:
    text = draw([view(0, name, name, type=name, payload=name)], "svg")

    assert len(text) < 30_000
