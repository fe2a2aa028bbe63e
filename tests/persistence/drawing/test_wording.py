from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorbus.persistence.drawing.wording import (
    cells,
    clipped,
    counted,
    duration,
    elided,
    inert,
)

_any = st.text(st.characters(exclude_categories=()), max_size=40)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 µs"),
        (0.000_12, "120 µs"),
        (0.001_234, "1.23 ms"),
        (0.25, "250 ms"),
        (1.5, "1.50 s"),
        (125, "2 min 5 s"),
        (7_320, "2 h 2 min"),
        (2 * 86_400 + 3_600, "2 d 1 h"),
        (-0.25, "-250 ms"),
    ],
)
def test_a_time_is_said_in_its_own_unit(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (7_224, "7,224 rows")]
)
def test_one_is_not_said_as_many(count: int, said: str) -> None:
    assert counted(count, "row") == said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Zoë 日本", "Zoë 日本"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\nb", "a\\nb"),
        ("user\u202egnp.exe", "user\\u202egnp.exe"),
        ("half \ud800", "half \\ud800"),
        ("e\u0301\u0301\u0301", "e\u0301\u0301\\u0301"),
    ],
)
def test_what_would_be_obeyed_is_shown_instead(text: str, shown: str) -> None:
    assert inert(text) == shown


@given(_any)
def test_inert_text_has_nothing_that_could_be_obeyed(text: str) -> None:
    shown = inert(text)

    assert shown.isprintable()
    assert not any(unicodedata.category(char) in ("Cc", "Cf", "Cs") for char in shown)


@given(_any, st.integers(1, 30))
def test_elided_text_fits(text: str, width: int) -> None:
    assert cells(elided(text, width)) <= width


@given(_any)
def test_text_that_fits_is_not_elided(text: str) -> None:
    assert elided(text, 600) == inert(text)


def test_what_does_not_fit_is_left_out_of_the_middle() -> None:
    assert elided("surveyor-of-the-north-1", 11) == "surve…rth-1"
    assert elided("日本語の名前", 7) == "日…前"
    assert elided("x" * 1_000_000, 3) == "x…x"


def test_clipped_text_keeps_its_lines_and_says_that_it_goes_on() -> None:
    assert clipped("one\ntwo\x07", 100) == "one\ntwo\\x07"
    assert clipped("one\ntwo", 5) == "one\nt…"
