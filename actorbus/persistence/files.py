"""Files that appear under their name when they are whole and on disk, or not at all."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from errno import EEXIST, EINVAL, EISDIR
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def whole_file(path: Path, *, overwrite: bool = False) -> Iterator[TextIO]:
    """A file for UTF-8 that is there under its name once the block has ended well, not before.

    A link is followed. A new file is readable as the umask says, one that is replaced keeps its
    permissions.

    Raises:
        OSError: it cannot be written; FileExistsError: it is there, and `overwrite` is not set.
    """
    path = path.resolve()
    _refuse_existing(path, overwrite=overwrite)
    temporary = path.with_name(f".{path.name[:64]}.{os.urandom(4).hex()}")
    try:
        with _opened(temporary, path) as file:
            if path.exists():
                shutil.copymode(path, temporary)
            yield file
            file.flush()
            os.fsync(file.fileno())
        _refuse_existing(path, overwrite=overwrite)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _opened(temporary: Path, path: Path) -> TextIO:
    try:
        return temporary.open("x", encoding="utf-8", newline="")
    except OSError as error:  # of which the caller knows no such name
        raise OSError(error.errno, error.strerror, str(path)) from None


def _refuse_existing(path: Path, *, overwrite: bool) -> None:
    if path.is_dir():
        raise IsADirectoryError(EISDIR, "it is a directory: name a file in it", str(path))
    if path.exists() and not path.is_file():
        raise OSError(EINVAL, "it is no regular file: give the export a stream", str(path))
    if path.exists() and not overwrite:
        raise FileExistsError(EEXIST, "it exists: name another file, or overwrite it", str(path))
