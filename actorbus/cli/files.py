"""Writing what a command made to a file: all of it or nothing."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from tempfile import mkstemp

from actorbus.cli.terminal import fail


def write(path: Path, text: str) -> None:
    """Make `path` hold `text` in UTF-8; what it held stays until the new text is on disk.

    A new file is readable as the umask says, one that is replaced keeps its permissions. What
    is no regular file, such as a pipe, is written as it is. A path that cannot be written ends
    the command with code 1.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(text.encode())
        else:
            _replace(path.resolve(), text.encode())
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror or error}", 1)


def _replace(path: Path, content: bytes) -> None:
    handle, name = mkstemp(dir=path.parent, prefix=".actorbus-")
    written = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(handle)
        _permit(written, path)
        written.replace(path)
    except BaseException:
        with suppress(OSError):
            written.unlink()
        raise


def _permit(written: Path, path: Path) -> None:
    if path.exists():
        shutil.copymode(path, written)
        return
    umask = os.umask(0)
    os.umask(umask)
    written.chmod(0o666 & ~umask)
