from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorbus.persistence.drawing import draw
from actorbus.persistence.drawing.sequence import lay_out
from actorbus.persistence.drawing.terminal import Tone, lines
from actorbus.persistence.drawing.wording import cells


def test_a_small_conversation_reads_from_top_to_bottom(small: Any) -> None:
    assert draw(small, "text", width=80) == (
        "Conversation 01990000-0000-7000-8000-000000000000\n"
        "11 messages, 4 agents, from 2026-03-01 12:00:00 UTC for 64 ms, 2 failed or dead\n"
        "     +0 µs  outside ──> boss  Text · waited 80 µs · took 8.92 ms\n"
        "   +120 µs    boss ──> counter  Text · waited 230 µs · took 1.05 ms\n"
        "  +1.40 ms      counter ╌╌> boss  Count\n"
        "  +1.50 ms    boss ──> itself  Again · waited 7.50 ms · took 300 µs\n"
        "  +2.00 ms    boss ──> 2 agents  Halt · 1 of 2 dead: no-handler\n"
        "                   ├─> counter\n"
        "                   └─x spare  dead: no-handler\n"
        "  +3.00 ms    boss ──> spare  Text · topic news.all · waited 100 µs · took 61 ms\n"
        "  +3.50 ms    boss ──> nobody  Text · topic news.none · handled by nobody yet\n"
        "  +4.00 ms    boss ──x ghost  Text · dead: no-such-agent\n"
        "  +5.00 ms      spare ╌╌x boss  ValueError · error\n"
        "  +8.00 ms    boss ──> counter  Text · not handled yet\n"
        "  +9.00 ms    boss ╌╌> outside  int\n"
    )


@pytest.mark.parametrize("width", [60, 80, 200])
@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_no_line_is_wider_than_the_terminal_or_obeyed_by_it(
    data: st.DataObject, conversations: Any, width: int
) -> None:
    told = draw(data.draw(conversations), "text", width=width).split("\n")

    for line in told:
        assert cells(line) <= width
        assert line.isprintable()


def test_a_long_name_is_elided_and_a_short_one_is_not(view: Any) -> None:
    message = view(0, "the-surveyor-of-the-far-far-north", "bob", type="Text")

    (line,) = lines(lay_out([message]), 60)
    assert "…" in line[1].text
    assert line[3].text == "bob"


def test_what_is_wrong_and_what_waits_have_tones_of_their_own(small: Any) -> None:
    told = list(lines(lay_out(small), 80))

    tones = [line[-1].tone for line in told if line[-1].text]

    assert tones.count(Tone.WRONG) == 4
    assert tones.count(Tone.WAITS) == 2
