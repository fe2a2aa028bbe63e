"""Waiting for what another thread or process is about to do."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def until(
    holds: Callable[[], object], why: str = "it never came to be", *, within: float = 20.0
) -> None:
    """Wait until it holds; after `within` seconds the test fails with `why`."""
    give_up = time.monotonic() + within
    while not holds():
        assert time.monotonic() < give_up, why
        time.sleep(0.002)
