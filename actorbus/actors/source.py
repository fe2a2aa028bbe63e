"""What a source file is called, however it was imported or started."""
# pathlib would cost more to import than all of this file does.
# ruff: noqa: PTH100, PTH113, PTH118, PTH122

from __future__ import annotations

import os.path
import sys
from functools import lru_cache


def source_module(module: str) -> str:
    """The dotted name that the file of an imported module has as part of its packages.

    A program (``__main__``), a file that ``node.load`` read, and the same file imported as part
    of a folder that is no package all have one name, so that nodes agree on it. A module
    without a file is called as it is.
    """
    file = getattr(sys.modules.get(module), "__file__", None)
    return name_of_file(file) if file else module


@lru_cache(maxsize=4_096)
def name_of_file(file: str) -> str:
    folder, name = os.path.split(os.path.abspath(file))
    stem = os.path.splitext(name)[0]
    parts = [] if stem == "__init__" else [stem]
    while os.path.isfile(os.path.join(folder, "__init__.py")):
        folder, package = os.path.split(folder)
        parts.append(package)
    return ".".join(reversed(parts))
