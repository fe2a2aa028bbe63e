"""What a source file is called, however it was imported or started."""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path


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
    path = Path(file).absolute()
    parts = [] if path.stem == "__init__" else [path.stem]
    for folder in path.parents:
        if not (folder / "__init__.py").is_file():
            break
        parts.append(folder.name)
    return ".".join(reversed(parts))
