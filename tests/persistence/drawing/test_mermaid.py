from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actorbus.persistence.drawing import draw

_SAFE = r"(?:[^\n;#%{}<>$:\"\\\[\]@&]|#\d+;)*"
_LINES = re.compile(
    rf"    (?:participant p\d+ as |p\d+--?(?:>>|x|\))p\d+: |Note over p\d+: ){_SAFE}"
)
"""What the grammar of sequenceDiagram has of our lines, with text that is text."""


def test_a_small_conversation_reads_as_a_sequence_diagram(small: Any) -> None:
    assert draw(small, "mermaid") == (
        "sequenceDiagram\n"
        "    participant p0 as outside\n"
        "    participant p1 as boss\n"
        "    participant p2 as counter\n"
        "    participant p3 as spare\n"
        "    participant p4 as ghost\n"
        "    p0->>p1: Text · waited 80 µs · took 8.92 ms\n"
        "    p1->>p2: Text · waited 230 µs · took 1.05 ms\n"
        "    p2-->>p1: Count\n"
        "    p1->>p1: Again · waited 7.50 ms · took 300 µs\n"
        "    p1->>p2: Halt · broadcast · urgent · waited 100 µs · took 210 µs"
        " · 1 of 2 dead#58; no-handler\n"
        "    p1-xp3: Halt · broadcast · urgent · waited 100 µs · took 210 µs"
        " · 1 of 2 dead#58; no-handler\n"
        "    p1->>p3: Text · topic news.all · waited 100 µs · took 61 ms\n"
        "    Note over p1: Text · topic news.none · handled by nobody yet\n"
        "    p1-xp4: Text · dead#58; no-such-agent\n"
        "    p3--xp1: ValueError · error\n"
        "    p1-)p2: Text · not handled yet\n"
        "    p1-->>p0: int\n"
    )


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("end", "#101;nd"),
        ("The END", "The #69;ND"),
        ("a;b#c", "a#59;b#35;c"),
        ("%%{init}", "#37;#37;#123;init#125;"),
        ("<br/>", "#60;br/#62;"),
        ("wrap:x", "wrap#58;x"),
        ("two\nlines", "two#92;nlines"),
        ("日本", "日本"),
    ],
)
def test_what_mermaid_would_obey_is_spelled_out(view: Any, name: str, shown: str) -> None:
    text = draw([view(0, name, None)], "mermaid")

    assert text.splitlines()[1] == f"    participant p0 as {shown}"


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_every_line_is_one_of_ours(data: st.DataObject, conversations: Any) -> None:
    first, *rest = draw(data.draw(conversations), "mermaid").removesuffix("\n").split("\n")

    assert first == "sequenceDiagram"
    for line in rest:
        assert _LINES.fullmatch(line), line
        assert not re.search(r"\bend\b", line, re.IGNORECASE)


def test_more_than_mermaid_takes_by_default_is_said_in_a_comment(view: Any, long: Any) -> None:
    many = [view(number, "alice", "bob", at=number) for number in range(3_000)]

    assert draw(long, "mermaid").startswith("sequenceDiagram\n")
    assert draw(many, "mermaid").startswith("%% over 50,000 characters: raise maxTextSize")
