"""Keys of nodes: a private one in a PEM file, public ones as lines of ``name: key``.

A list of trusted keys is one file of such lines, or a folder of ``*.pub`` files with them. A
node may have several, so that a key can be replaced while both are in use. Blank lines and those
that begin with ``#`` are passed over.
"""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote

from actorbus.errors import InvalidName, InvalidSettings
from actorbus.message import check_name
from actorbus.settings import NAME_A_FILE, is_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

_FILE_LIMIT: Final = 1 << 20
"""Bytes of one file of keys: some 10,000 nodes."""
_MOST_KEYS: Final = 4
"""Keys of one node: each is tried, and a try costs 0.1 ms."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Where a new pair of keys lies, and the line that makes others trust it."""

    private: Path
    public: Path
    line: str


def make_keys(node: str, folder: Path) -> KeyPair:
    """Write a new pair for `node`: ``<node>.pem``, for its owner only, and ``<node>.pub``.

    Raises:
        InvalidName: not the name of a node.
        InvalidSettings: a file is there already or cannot be written, or ``cryptography`` is
            not installed.
    """
    check_name("a node", node)
    if node.startswith("#"):
        raise InvalidName("a node with a key", node, "a line that begins with # is a comment")
    serialization, ed25519 = _cryptography()
    key = ed25519.Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    name = quote(node, safe="")
    made = KeyPair(folder / f"{name}.pem", folder / f"{name}.pub", public_line(node, key))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_new(made.private, secret, 0o600)
        try:
            _write_new(made.public, f"{made.line}\n".encode(), 0o644)
        except OSError:
            made.private.unlink()
            raise
    except OSError as error:
        raise InvalidSettings(f"{error.filename}: {error.strerror}") from None
    return made


def public_line(node: str, key: Ed25519PrivateKey) -> str:
    """What a list of trusted keys says of `node`."""
    return f"{node}: {base64.b64encode(key.public_key().public_bytes_raw()).decode()}"


def private_key(path: Path) -> Ed25519PrivateKey:
    """The key in a PEM file.

    Raises:
        InvalidSettings: the file has no such key, or ``cryptography`` is not installed.
    """
    if is_key(str(path)):  # no error may show it
        raise InvalidSettings(f"signing_key: {NAME_A_FILE}")
    serialization, ed25519 = _cryptography()
    try:
        key: Any = serialization.load_pem_private_key(_read(path, "the signing key"), None)
    except (ValueError, TypeError):
        raise InvalidSettings(
            f"the signing key {path}: no key in PEM without a passphrase;"
            " `actorbus keys NODE` makes one"
        ) from None
    except Exception as error:
        if type(error).__name__ == "UnsupportedAlgorithm":
            raise InvalidSettings(f"the signing key {path}: no Ed25519 key") from None
        raise
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise InvalidSettings(
            f"the signing key {path}: no Ed25519 key; `actorbus keys NODE` makes one"
        )
    return cast("Ed25519PrivateKey", key)


def trusted_keys(path: Path) -> dict[str, tuple[Ed25519PublicKey, ...]]:
    """The keys of each node, of a file or of all ``*.pub`` files of a folder.

    Raises:
        InvalidSettings: there is none, or a line is wrong; the error names it.
    """
    files = sorted(path.glob("*.pub")) if path.is_dir() else [path]
    found: dict[str, tuple[Ed25519PublicKey, ...]] = {}
    for file in files:
        for place, node, key in _lines(file):
            found[node] = (*found.get(node, ()), key)
            if len(found[node]) > _MOST_KEYS:
                raise InvalidSettings(f"{place}: node {node!r} has more than {_MOST_KEYS} keys")
    if not found:
        raise InvalidSettings(
            f"the trusted keys {path}: there is none; `actorbus keys NODE` prints the line to add"
        )
    return found


def check_own(
    node: str, key: Ed25519PrivateKey, trusted: Mapping[str, tuple[Ed25519PublicKey, ...]]
) -> None:
    """See that a node believes itself: what it sends comes back to it too.

    Raises:
        InvalidSettings: its own key is not among those trusted under its name.
    """
    own = key.public_key().public_bytes_raw()
    if all(one.public_bytes_raw() != own for one in trusted.get(node, ())):
        raise InvalidSettings(
            f"node {node!r} would refuse what it sends itself, as its key is not among those"
            f" trusted under that name; add the line {public_line(node, key)}"
        )


def _lines(file: Path) -> Iterator[tuple[str, str, Ed25519PublicKey]]:
    """Where it stands, whose it is, and the key, of each line that holds one."""
    _, ed25519 = _cryptography()
    try:
        text = _read(file, "the trusted keys").decode()
    except UnicodeDecodeError:
        raise InvalidSettings(f"the trusted keys {file}: not text in UTF-8") from None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        place = f"{file}, line {number}"
        node, colon, key = line.rpartition(":")
        try:
            raw = base64.b64decode(key.strip(), validate=True)
            public = ed25519.Ed25519PublicKey.from_public_bytes(raw)
            yield place, check_name("a node", node.strip()), public
        except InvalidName as error:
            raise InvalidSettings(f"{place}: {error}") from None
        except (binascii.Error, ValueError):
            what = "no Ed25519 public key" if colon else "no line of `name: key`"
            raise InvalidSettings(
                f"{place}: {what}; such as the line that `actorbus keys NODE` prints"
            ) from None


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_LIMIT + 1)
    except OSError as error:
        raise InvalidSettings(f"{what} {path}: {error.strerror}") from None
    if len(data) > _FILE_LIMIT:
        raise InvalidSettings(f"{what} {path}: more than {_FILE_LIMIT:,} bytes")
    return data


def _write_new(path: Path, data: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:  # noqa: PTH123
        file.write(data)


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise InvalidSettings(
            "signed envelopes need the package cryptography: pip install 'actorbus[signed]'"
        ) from None
    return serialization, ed25519
