from __future__ import annotations

import pytest

from benchmarks.report import short


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (1_234_567, "1.23M"),
        (999_600, "1.00M"),
        (99_123, "99.1k"),
        (999.6, "1.00k"),
        (840, "840"),
        (12.34, "12.3"),
        (0.45, "0.45"),
        (0.0044, "0.0044"),
        (0, "0.00"),
        (-0.86, "-0.86"),
    ],
)
def test_a_figure_has_three_digits_at_most(figure: float, text: str) -> None:
    assert short(figure) == text
