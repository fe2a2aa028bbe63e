"""A source tree, file by file: found, read, measured. Nothing here sends a message."""

from __future__ import annotations

import ast
import os
import stat
import tokenize
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Final

from actorbus.errors import Reject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

LARGEST: Final = 2 << 20
"""In bytes. The parser answers to nobody while it works, and needs about 100 times the memory."""

_LEFT_OUT: Final = frozenset({"__pycache__", "site-packages", "dist-packages", "node_modules"})
_NAME_SHOWN: Final = 60
_BODIES: Final = ("body", "orelse", "finalbody", "handlers", "cases")


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A folder that could not be listed."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Function:
    """One function, and how long it is in lines."""

    name: str
    path: str
    line: int
    lines: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What one file holds. ``documented`` counts functions and classes with a docstring,
    ``imports`` names each top-level module once."""

    path: str
    bytes: int
    lines: int
    functions: int
    classes: int
    documented: int
    imports: tuple[str, ...]
    longest: Function | None


def walk(root: Path) -> Iterator[str | Unlisted]:
    """The Python files under `root`, as paths relative to it, in order.

    Hidden folders, ``site-packages`` and the like are left out, and so are links to folders:
    they may lead back up. A folder that cannot be listed comes out in place of its files.
    """
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            files, folders = _listed(folder)
        except OSError as error:
            yield Unlisted(_within(root, folder), _reason(error))
            continue
        yield from (_within(root, folder / name) for name in files)
        waiting.extend(folder / name for name in reversed(folders))


def examine(root: Path, path: str) -> Findings:
    """Read and parse the file at `path` under `root`.

    Raises:
        Reject: it cannot be; the reason starts with a word for its kind and a colon.
    """
    source = _read(root / path)
    return measure(_parsed(_decoded(source)), path, source)


def measure(tree: ast.Module, path: str, source: bytes) -> Findings:
    """What the parsed `source` holds."""
    functions: list[Function] = []
    classes = documented = 0
    imports: set[str] = set()
    for node in _statements(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                functions.append(Function(node.name, path, node.lineno, length))
                documented += _has_docstring(node)
            case ast.ClassDef():
                classes += 1
                documented += _has_docstring(node)
            case ast.Import():
                imports.update(_top_level(alias.name) for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                imports.add(_top_level(module))
    return Findings(
        path=path,
        bytes=len(source),
        lines=source.count(b"\n") + (not source.endswith(b"\n") and source != b""),
        functions=len(functions),
        classes=classes,
        documented=documented,
        imports=tuple(sorted(imports)),
        longest=max(functions, key=lambda each: (each.lines, -each.line), default=None),
    )


def _listed(folder: Path) -> tuple[list[str], list[str]]:
    """The names of the Python files and of the folders to go into, sorted."""
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                hidden = entry.name.startswith(".") or entry.name in _LEFT_OUT
                if not hidden and not entry.is_symlink():
                    folders.append(entry.name)
            elif entry.name.endswith(".py"):
                files.append(entry.name)
    return sorted(files), sorted(folders)


def _read(path: Path) -> bytes:
    try:
        # Opening a pipe would wait for whoever writes into it.
        if not stat.S_ISREG(path.stat().st_mode):
            raise Reject("unreadable: not a regular file")
        with path.open("rb") as file:
            source = file.read(LARGEST + 1)
    except OSError as error:
        raise Reject(f"unreadable: {_reason(error)}") from error
    if len(source) > LARGEST:
        raise Reject(f"too large: more than {LARGEST >> 20} MiB")
    return source


def _decoded(source: bytes) -> str:
    """The text, by the encoding that the file itself declares."""
    try:
        encoding, _ = tokenize.detect_encoding(BytesIO(source).readline)
        text = source.decode(encoding)
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        raise Reject(f"encoding: line {line} is not {error.encoding}: {error.reason}") from error
    except (SyntaxError, LookupError, UnicodeError) as error:
        raise Reject(f"encoding: {getattr(error, 'msg', error)}") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise Reject(f"null byte: in line {line}")
    return text


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError as error:
        raise Reject(f"syntax error: line {error.lineno}: {error.msg}") from error
    except (RecursionError, MemoryError) as error:
        raise Reject("nested too deeply: more than this Python can parse") from error
    except ValueError as error:
        raise Reject(f"syntax error: {error}") from error


def _statements(tree: ast.Module) -> Iterator[ast.AST]:
    """Every statement. Expressions hold none, and are nine tenths of a tree."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for name in _BODIES:
            inner: Iterable[ast.AST] = getattr(node, name, ())
            waiting.extend(inner)


def _has_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    return ast.get_docstring(node, clean=False) is not None


def _top_level(module: str) -> str:
    return module.partition(".")[0][:_NAME_SHOWN]


def _within(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
