"""What all tests share."""

from __future__ import annotations

import re
from typing import Any

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def pytest_make_parametrize_id(config: object, val: Any, argname: str) -> str | None:
    """Name a case by its value, where that reads the same in every process that collects it."""
    shown = _ADDRESS.sub("", repr(val))
    if isinstance(val, str) or "{" in shown:
        return None
    return shown[:80]
