from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from actorbus.cli.demo.source import LARGEST, Function, Unlisted, examine, walk
from actorbus.errors import Reject

if TYPE_CHECKING:
    from pathlib import Path


def _write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x = 1\n")


def _refusal(root: Path, source: bytes) -> str:
    (root / "file.py").write_bytes(source)
    with pytest.raises(Reject) as caught:
        examine(root, "file.py")
    return caught.value.why


def test_a_walk_finds_the_python_files_in_order(tmp_path: Path) -> None:
    _write(tmp_path, "b.py", "a.py", "notes.txt", "package/z.py", "package/deep/er.py")

    found = list(walk(tmp_path))

    assert found == ["a.py", "b.py", "package/z.py", "package/deep/er.py"]


def test_a_walk_leaves_out_hidden_folders_and_what_is_installed(tmp_path: Path) -> None:
    _write(tmp_path, ".venv/a.py", "site-packages/b.py", "x/dist-packages/c.py", "__pycache__/d.py")

    assert list(walk(tmp_path)) == []


def test_the_root_itself_may_be_site_packages(tmp_path: Path) -> None:
    _write(tmp_path, "site-packages/a.py")

    assert list(walk(tmp_path / "site-packages")) == ["a.py"]


def test_a_walk_follows_no_link_to_a_folder(tmp_path: Path) -> None:
    _write(tmp_path, "package/a.py")
    (tmp_path / "package" / "again").symlink_to(tmp_path)

    assert list(walk(tmp_path)) == ["package/a.py"]


def test_a_folder_that_vanishes_is_named_and_the_walk_goes_on(tmp_path: Path) -> None:
    _write(tmp_path, "a.py", "gone/b.py", "kept/c.py")
    found = walk(tmp_path)
    next(found)

    shutil.rmtree(tmp_path / "gone")

    assert list(found) == [Unlisted("gone", "No such file or directory"), "kept/c.py"]


def test_what_a_file_holds_is_counted(tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text(
        '''\
import os.path, sys
from collections import abc
from . import sibling
if sys:
    import os
    class C:
        """Documented."""
        async def first(self):
            try:
                def second(): return 1
            except OSError:
                def third(): "documented"
match os:
    case 1:
        def fourth():
            x = lambda: (
                1
            )
            return x'''
    )

    found = examine(tmp_path, "file.py")

    assert (found.lines, found.functions, found.classes, found.documented) == (19, 4, 1, 2)
    assert found.imports == ("collections", "os", "sys")
    assert found.longest == Function("first", "file.py", 8, 5)
    assert found.bytes == (tmp_path / "file.py").stat().st_size


def test_an_empty_file_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "file.py").write_bytes(b"")

    found = examine(tmp_path, "file.py")

    assert (found.lines, found.functions, found.imports, found.longest) == (0, 0, (), None)


def test_the_encoding_that_a_file_declares_is_used(tmp_path: Path) -> None:
    (tmp_path / "file.py").write_bytes("# coding: latin-1\ndef f\xe9(): pass\n".encode("latin-1"))

    longest = examine(tmp_path, "file.py").longest

    assert longest is not None
    assert longest.name == "f\xe9"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (b"x = 1\nprint 'old'\n", "syntax error: line 2: "),
        (b"x = 1\n\ny = '\xe9'\n", "encoding: line 3 is not utf-8: "),
        (b"# coding: no-such-thing\n", "encoding: unknown encoding: no-such-thing"),
        (b"# coding: rot13\nk = 1\n", "encoding: "),
        (b"x = 1\ny = '\0'\n", "null byte: in line 2"),
        (b"#" * (LARGEST + 1), "too large: more than 2 MiB"),
        (b"x = " + b"-" * 100_000 + b"1", "nested too deeply: "),
        (b"(" * 1_000, "syntax error: line 1: "),
    ],
)
def test_a_file_that_cannot_be_parsed_says_why(tmp_path: Path, source: bytes, why: str) -> None:
    assert _refusal(tmp_path, source).startswith(why)


def test_a_file_that_vanishes_or_is_none_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")

    with pytest.raises(Reject, match="unreadable: No such file"):
        examine(tmp_path, "gone.py")
    with pytest.raises(Reject, match="unreadable: not a regular file"):
        examine(tmp_path, "pipe.py")
