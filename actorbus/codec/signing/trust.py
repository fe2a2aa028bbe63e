"""What a node signs with, and whom it believes: as it is set up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from actorbus.codec.signing.keys import check_own, private_key, trusted_keys
from actorbus.codec.signing.sealing import (
    SEAL_LIMIT,
    WINDOW,
    Opened,
    Signer,
    Verifier,
    is_sealed,
    read_seal,
)
from actorbus.errors import InvalidSettings, Undecodable

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Trust:
    """Seals and opens as far as a node has keys to; without any, blobs pass as they are.

    `limit` is the most bytes of a blob.
    """

    limit: int
    signer: Signer | None = None
    verifier: Verifier | None = None

    @classmethod
    def of(
        cls,
        node: str,
        *,
        limit: int,
        signing_key: Path | None = None,
        trusted: Path | None = None,
        namespace: str = "actorbus",
        window: float = WINDOW,
    ) -> Trust:
        """What a node's settings say.

        Raises:
            InvalidSettings: a key cannot be used, or the node would refuse what it sends.
        """
        key = None if signing_key is None else private_key(signing_key)
        signer = None if key is None else Signer(key, node, namespace=namespace)
        if trusted is None:
            return cls(limit, signer)
        if key is None:
            raise InvalidSettings(
                "trusted_keys without signing_key: all who trust by keys would refuse what this"
                " node sends; `actorbus keys NODE` makes one"
            )
        known = trusted_keys(trusted)
        check_own(node, key, known)
        return cls(limit, signer, Verifier(known, limit=limit, namespace=namespace, window=window))

    def seal(
        self, recipient: str, blob: bytes, now: float, *, level: int = 0, delay: float = 0.0
    ) -> bytes:
        """See ``Signer.seal``."""
        if self.signer is None:
            return blob
        return self.signer.seal(recipient, blob, now, level=level, delay=delay)

    def open(
        self, recipient: str, sealed: bytes, now: float, *, level: int = 0, again: bool = False
    ) -> Opened:
        """See ``Verifier.open``. Without trusted keys, nobody vouches for anything.

        Raises:
            Undecodable: too large, or the wrong shape.
            Untrusted: refused.
        """
        if self.verifier is not None:
            return self.verifier.open(recipient, sealed, now, level=level, again=again)
        if len(sealed) > self.limit + SEAL_LIMIT:
            raise Undecodable(f"{len(sealed):,} bytes, the limit is {self.limit + SEAL_LIMIT:,}")
        return Opened(None, read_seal(sealed).blob if is_sealed(sealed) else sealed)

    def forget(self, recipient: str) -> None:
        """See ``Verifier.forget``."""
        if self.verifier is not None:
            self.verifier.forget(recipient)
