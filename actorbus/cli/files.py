"""What a command writes to a file: all of it or nothing."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from actorbus.cli.terminal import fail
from actorbus.persistence.files import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What keeps the block from writing `path` ends the command with a sentence and code 1."""
    try:
        yield
    except FileExistsError:
        fail(f"{path} exists: name another file, or give --overwrite", 1)
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror or error}", 1)


def write(path: Path, text: str) -> None:
    """Make `path` hold `text` in UTF-8; what it held stays until the new text is on disk.

    What is no regular file, such as a pipe, is written as it is. A path that cannot be written
    ends the command with code 1.
    """
    with writing(path):
        if path.exists() and not path.is_file():
            path.write_bytes(text.encode())
            return
        with whole_file(path, overwrite=True) as file:
            file.write(text)
