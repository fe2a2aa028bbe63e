"""The names that classes travel under, and which classes do."""

from __future__ import annotations

import dataclasses
import sys
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, RootModel

KNOWN_CLASSES: Final = 10_000
"""How many classes are remembered before some are forgotten."""
MAX_BASES: Final = 32

_T = TypeVar("_T")


def source_name(cls: type[Any]) -> str:
    """``module:qualname`` of a class, the same however its source file was started.

    A class of the program itself (``python shop.py``, ``python -m shop``, or a process that
    ``multiprocessing`` spawned from either) has the module name it would have if imported.
    """
    module = cls.__module__
    if module in ("__main__", "__mp_main__"):
        module = _name_of_program(module)
    return f"{module}:{cls.__qualname__}"


def _name_of_program(module: str) -> str:
    program = sys.modules.get(module)
    spec = getattr(program, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = getattr(program, "__file__", None)
    if not file:
        return module
    path = Path(file)
    parts = [path.stem]
    for folder in path.absolute().parents:
        if not (folder / "__init__.py").is_file():
            break
        parts.append(folder.name)
    return ".".join(reversed(parts))


def is_carried(cls: type[Any]) -> bool:
    if cls is BaseModel or cls is RootModel:
        return False
    return issubclass(cls, BaseModel | Enum) or dataclasses.is_dataclass(cls)


def names_of(cls: type[Any]) -> list[str]:
    return [source_name(base) for base in cls.__mro__ if is_carried(base)][:MAX_BASES]


def keep(cache: dict[type[Any], _T], cls: type[Any], value: _T) -> _T:
    """Programs that make classes without end must not fill the memory with what we know of them."""
    if len(cache) >= KNOWN_CLASSES:
        cache.clear()
    cache[cls] = value
    return value
