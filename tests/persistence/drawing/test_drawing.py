from __future__ import annotations

import json
from typing import Any

import pytest

from actorbus.errors import InvalidQuery
from actorbus.message import format_id
from actorbus.persistence.drawing import Format, draw


@pytest.mark.parametrize("format", list(Format))
def test_a_conversation_without_messages_can_be_drawn(format: Format) -> None:
    text = draw([], format)

    assert text == "" if format is Format.TEXT else text.endswith("\n")


def test_a_format_nobody_knows_is_refused_with_those_known() -> None:
    with pytest.raises(InvalidQuery, match="'pdf': use one of text, mermaid, svg, json, chrome"):
        draw([], "pdf")


def test_json_holds_the_messages_in_order(small: Any) -> None:
    told = json.loads(draw(small, "json"))

    assert [one["id"] for one in told] == [format_id(view.id) for view in small]
    assert told[1]["payload"] == {"body": "to be"}
    assert (told[1]["waited"], told[1]["took"]) == (0.000_23, 0.001_05)
    assert [one["recipient"] for one in told[4]["deliveries"]] == ["counter", "spare"]


@pytest.mark.parametrize("format", list(Format))
def test_a_drawing_is_the_same_every_time(format: Format, small: Any) -> None:
    assert draw(small, format) == draw(small, format)
