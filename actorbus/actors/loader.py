"""Finds the agents in files, folders and packages, and lets them stand by.

How a file is imported. One that belongs to a package (``__init__.py`` beside it) gets its own
dotted name, as Python would give it. Any other is a module of its own: its name is its stem and
a digest of its folder, so that two files called ``agents.py`` never meet. While it is imported,
``import neighbour`` finds the files beside it, each under its one name; afterwards the plain
names are gone again, and ``sys.path`` is never touched. An import inside a function, which
happens later, therefore needs a package.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.abc
import importlib.util
import inspect
import os
import sys
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from actorbus.actors.functions import agent_class, is_agent
from actorbus.actors.runtime import kebab_case
from actorbus.actors.source import name_of_file
from actorbus.errors import ActorbusError, BusClosed, InvalidArgument
from actorbus.message import check_name
from actorbus.telemetry import ModuleBroken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from actorbus.actors.agent import Agent
    from actorbus.actors.runtime import Runtime

_IMPORTING: Final = threading.RLock()
"""One load at a time: the modules of a process are its own, whatever nodes it has."""
_INIT: Final = "__init__.py"


@dataclass(frozen=True, slots=True)
class LoadedAgent:
    """An agent that stands by, as its class describes it."""

    name: str
    agent_type: str
    capabilities: tuple[str, ...]
    doc: str
    handles: tuple[str, ...]
    """The names of the payload types it takes."""
    path: str


@dataclass(frozen=True, slots=True)
class Broken:
    """A module that could not be imported, or an agent in it that could not be used."""

    path: str
    line: int | None
    error: str

    def __str__(self) -> str:
        where = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{where}: {self.error}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """What ``node.load`` found: the agents by name, and what is broken."""

    agents: Mapping[str, LoadedAgent]
    broken: tuple[Broken, ...]


@dataclass(frozen=True, slots=True)
class _Source:
    """A file with the dotted name it is imported by; None: it is in no package."""

    path: Path
    module: str | None


def load(path: str | os.PathLike[str], runtime: Runtime, *, lazily: bool = False) -> Loaded:
    """Let the agents at `path` stand by: a file, a folder with all below it, a package's name.

    Agents are the subclasses of Agent and the functions marked ``@agent`` that a module itself
    defines, except abstract ones and those whose name begins with ``_``. Each is known by its
    name in kebab case and marked ``failover``. It is made, without arguments, when somebody
    first needs it; one with ``subscriptions`` is made at once, for an event would not wait,
    unless the caller will see to that (`lazily`).
    Files and folders whose name begins with ``_`` or ``.`` are passed over. Loading again what
    is loaded changes nothing.

    Raises:
        InvalidArgument: there is nothing at `path`.
        BusClosed: the node is not running.
    """
    if not runtime.accepting:
        raise BusClosed("the node is not running; start it, or use it as `with Node()`")
    loading = _Loading(runtime, lazily=lazily)
    with _IMPORTING:
        importlib.invalidate_caches()
        for source in _sources(path, loading.report):
            loading.load(source)
    return Loaded(loading.agents, tuple(loading.broken))


class _Loading:
    """One call of ``load``: what it has found so far."""

    def __init__(self, runtime: Runtime, *, lazily: bool) -> None:
        self._runtime = runtime
        self._lazily = lazily
        self.agents: dict[str, LoadedAgent] = {}
        self.broken: list[Broken] = []

    def load(self, source: _Source) -> None:
        try:
            module = _import(source)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, the others go on
            self.report(source.path, *_fault(error, source.path))
            return
        for given in _agents_of(module):
            try:
                self._stand_by(source, module, given)
            except ActorbusError as error:
                self.report(source.path, _line_of(given), str(error))

    def report(self, path: Path, line: int | None, error: str) -> None:
        broken = Broken(str(path), line, error)
        self.broken.append(broken)
        if self._runtime.telemetry.active:
            self._runtime.telemetry.emit(ModuleBroken(broken.path, line, error))

    def _stand_by(self, source: _Source, module: ModuleType, given: Any) -> None:
        cls = agent_class(given)
        if source.module is None:
            # What nodes call it must not depend on where the file lies on this machine.
            cls.agent_type = f"{name_of_file(str(source.path))}:{cls.__qualname__}"
        name = check_name("an agent", kebab_case(cls.__name__))
        if why := _needs_arguments(cls):
            self.report(source.path, _line_of(given), f"{name!r} {why}")
            return
        other = self._runtime.standby.add(name, cls)
        if other is not None:
            why = f"the name {name!r} is taken by {other}; rename {module.__name__}.{cls.__name__}"
            self.report(source.path, _line_of(given), why)
            return
        if cls.subscriptions and not self._lazily:
            self._runtime.standby.wake(name)
        meta = cls.metadata()
        self.agents[name] = LoadedAgent(
            name, cls.agent_type, cls.capabilities, meta["doc"], meta["handles"], str(source.path)
        )


# -- which files


def _sources(
    path: str | os.PathLike[str], report: Callable[[Path, int | None, str], None]
) -> Iterator[_Source]:
    """The files that `path` means, in an order that is always the same."""
    if not isinstance(path, str | os.PathLike) or not str(path):
        raise InvalidArgument("agents to load", path, "give a file, a folder, or a package's name")
    file = Path(path).resolve()
    if file.is_dir():
        for found in _files_below(file, report):
            yield _Source(found, _dotted_name(found))
    elif file.is_file():
        if file.suffix != ".py":
            raise InvalidArgument("agents to load", str(path), "a file of Python ends in .py")
        yield _Source(file, _dotted_name(file))
    else:
        yield from _sources_of_package(str(path), report)


def _sources_of_package(
    name: str, report: Callable[[Path, int | None, str], None]
) -> Iterator[_Source]:
    missing = InvalidArgument(
        "agents to load", name, "there is no such file or folder, and no module that is called so"
    )
    if not all(part.isidentifier() for part in name.split(".")):
        raise missing
    try:
        spec = importlib.util.find_spec(name)
    except KeyboardInterrupt:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise missing from None
        report(Path(name), None, _sentence(error))
        return
    except BaseException as error:  # noqa: BLE001 - a parent package is broken
        report(Path(name), None, _sentence(error))
        return
    if spec is None or (spec.submodule_search_locations is None and not spec.has_location):
        raise missing
    if spec.submodule_search_locations is None:
        yield _Source(Path(str(spec.origin)).resolve(), name)
        return
    for location in spec.submodule_search_locations:
        folder = Path(location).resolve()
        for found in _files_below(folder, report):
            parts = found.relative_to(folder).with_suffix("").parts
            inner = parts[:-1] if found.name == _INIT else parts
            yield _Source(found, ".".join((name, *inner)))


def _files_below(folder: Path, report: Callable[[Path, int | None, str], None]) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        report(Path(str(error.filename or folder)), None, _sentence(error))

    for where, folders, files in os.walk(folder, onerror=unreadable):
        folders[:] = sorted(one for one in folders if not one.startswith(("_", ".")))
        for file in sorted(files):
            if file == _INIT or (file.endswith(".py") and not file.startswith(("_", "."))):
                yield Path(where, file)


def _dotted_name(file: Path) -> str | None:
    """The name of a file in the package it belongs to; None if it belongs to none."""
    parts = [] if file.name == _INIT else [file.stem]
    folder = file.parent
    while folder.name and (folder / _INIT).is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    return ".".join(parts) if folder != file.parent else None


# -- importing them


def _import(source: _Source) -> ModuleType:
    """The module of a file, imported if it was not yet."""
    if source.module is None:
        folder, name = source.path.parent, _lone_name(source.path)
    else:
        depth = source.module.count(".") + (source.path.name == _INIT)
        folder, name = source.path.parents[depth], source.module
    finder = _Neighbours(folder)
    sys.meta_path.append(finder)
    try:
        top = name.partition(".")[0]
        if (folder / top / _INIT).is_file():
            _import_as(top, folder / top / _INIT)
        return _import_as(name, source.path)
    finally:
        sys.meta_path.remove(finder)
        finder.forget()


def _import_as(name: str, file: Path) -> ModuleType:
    module = importlib.import_module(name)
    origin = getattr(module, "__file__", None)
    if origin is None or not _same(origin, file):
        raise ImportError(f"the name {name!r} belongs to {origin or 'another module'}; rename it")
    return module


def _lone_name(file: Path) -> str:
    digest = hashlib.sha256(os.fsencode(file.parent)).hexdigest()[:8]
    return f"{file.stem}@{digest}"


class _Neighbours:
    """Finds what lies in one folder, for imports that nothing else on this thread can serve."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._thread = threading.get_ident()
        self._aliases: list[str] = []

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, _: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or threading.get_ident() != self._thread:
            return None
        package = self._folder / fullname / _INIT
        if package.is_file():
            return importlib.util.spec_from_file_location(
                fullname, package, submodule_search_locations=[str(package.parent)]
            )
        file = self._folder / f"{fullname.partition('@')[0]}.py"
        lone_name = _lone_name(file)
        if not file.is_file():
            return None
        if fullname == lone_name:
            return importlib.util.spec_from_file_location(lone_name, file)
        self._aliases.append(fullname)
        return importlib.util.spec_from_loader(fullname, _Alias(lone_name), origin=str(file))

    def forget(self) -> None:
        """Take the plain names back: elsewhere they mean something else."""
        for name in self._aliases:
            sys.modules.pop(name, None)


class _Alias(importlib.abc.Loader):
    """Imports a file by its plain name: the module that it is under its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._spec: ModuleSpec | None = None

    def create_module(self, _: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # It ran already; only what the import system has just written over is put right.
        module.__spec__ = self._spec


# -- what is in them


def _agents_of(module: ModuleType) -> Iterator[Any]:
    """What the module itself defines that is meant to be an agent, in order, each once."""
    seen: set[int] = set()
    for value in list(vars(module).values()):
        if id(value) in seen or not is_agent(value) or value.__module__ != module.__name__:
            continue
        seen.add(id(value))
        if not value.__name__.startswith("_") and not inspect.isabstract(value):
            yield value


def _needs_arguments(cls: type[Agent]) -> str:
    """Why it cannot be made without arguments; an empty string if it can."""
    try:
        inspect.signature(cls).bind()
    except TypeError as error:
        return f"cannot be made by itself ({error}); node.spawn() it with its arguments"
    return ""


# -- where the fault lies


def _fault(error: BaseException, path: Path) -> tuple[int | None, str]:
    """The line of the file on which its import failed, and a sentence that says why.

    Where the fault lies in another file altogether, the sentence says where.
    """
    sentence = _sentence(error)
    if isinstance(error, SyntaxError) and error.filename and _same(error.filename, path):
        return error.lineno, sentence
    frames = [
        (frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    lines = [line for filename, line in frames if _same(filename, path)]
    if lines:
        return lines[-1], sentence
    if "null bytes" in sentence and (line := _line_of_null_byte(path)):
        return line, sentence
    others = [f"{filename}:{line}" for filename, line in frames if _is_of_users(filename)]
    return None, f"{sentence} (at {others[-1]})" if others else sentence


def _line_of_null_byte(path: Path) -> int | None:
    """Python refuses such a source as a whole, and does not say where it is."""
    try:
        before, null, _ = path.read_bytes().partition(b"\0")
    except OSError:
        return None
    return before.count(b"\n") + 1 if null else None


def _sentence(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _is_of_users(filename: str) -> bool:
    return filename != __file__ and filename != importlib.__file__ and Path(filename).is_file()


def _line_of(given: Any) -> int | None:
    try:
        return inspect.findsource(given)[1] + 1
    except (OSError, TypeError):
        return None


def _same(filename: str, path: Path) -> bool:
    return Path(filename) == path or os.path.realpath(filename) == os.path.realpath(path)
