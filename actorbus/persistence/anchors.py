"""Anchors: where a chain stood, written down in a second place.

A chain proves that nothing in it was changed. It cannot prove that its end was not cut off, or
that all of it was not written anew: what says so is an anchor that whoever did it could not
change as well. So keep them where the database's writer alone may append, or have them signed
with an Ed25519 key that the database's other users do not have.

The file has one JSON object a line and is only ever appended to. A line that a crash cut short
is no anchor, and harms none.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from actorbus.errors import AuditUnavailable
from actorbus.persistence.chain import HASH_SIZE, fields
from actorbus.persistence.chains import Sealer, find_acts
from actorbus.persistence.columns import instant, microseconds
from actorbus.persistence.masking import Mask
from actorbus.settings import NAME_A_FILE, is_key
from actorbus.telemetry import AnchorFailed, Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from actorbus.persistence.chain import Head, Incarnation
    from actorbus.persistence.database import Database
    from actorbus.telemetry import Event

EVERY_ROWS: Final = 1_000
EVERY_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Anchor:
    """A chain's head at a time. Ids and hashes are in hexadecimal."""

    tenant: str
    chain: int
    number: int
    """Counts the anchors of this chain from 1."""
    seq: int
    hash: str
    at: str
    key: str | None = None
    """Whose signature it is: the first 16 digits of the public key's SHA-256."""
    signature: str | None = None

    def signed_bytes(self) -> bytes:
        at = microseconds(datetime.fromisoformat(self.at))
        return fields(
            b"actorbus anchor 1", self.tenant, self.chain, self.number, self.seq, self.hash, at
        )


class Signer:
    """Signs anchors with an Ed25519 private key, from a PEM file.

    Raises:
        AuditUnavailable: the file has no such key, or ``cryptography`` is not installed.
    """

    def __init__(self, path: Path) -> None:
        serialization, ed25519 = _cryptography()
        key = _loaded(path, lambda data: serialization.load_pem_private_key(data, None))
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise AuditUnavailable(f"{path} is no Ed25519 private key in PEM")
        self._key: Any = key
        self.key = _fingerprint(key.public_key())

    def sign(self, anchor: Anchor) -> Anchor:
        named = replace(anchor, key=self.key)
        return replace(named, signature=self._key.sign(named.signed_bytes()).hex())


class Verifier:
    """Checks signatures with an Ed25519 public key, from a PEM file.

    Raises:
        AuditUnavailable: as ``Signer``.
    """

    def __init__(self, path: Path) -> None:
        serialization, ed25519 = _cryptography()
        key = _loaded(path, serialization.load_pem_public_key)
        if not isinstance(key, ed25519.Ed25519PublicKey):
            raise AuditUnavailable(f"{path} is no Ed25519 public key in PEM")
        self._key: Any = key

    def is_signed(self, anchor: Anchor) -> bool:
        from cryptography.exceptions import InvalidSignature

        try:
            self._key.verify(bytes.fromhex(anchor.signature or ""), anchor.signed_bytes())
        except (InvalidSignature, ValueError):
            return False
        return True


def anchor_acts(database: Database, tenant: str, proof: Proof, now: float) -> None:
    """Anchor what was done to a tenant's history itself, as far as it is committed.

    Raises:
        AuditUnavailable: the place of the anchors fails; what was done is done.
    """
    if proof.anchors is None:
        return
    with database.of(tenant).reading() as connection:
        found = find_acts(connection, tenant)
    if found is not None:
        incarnation, head = found
        chain = Sealer(database.dialect, incarnation, head)
        telemetry = Telemetry()
        failed: list[str] = []

        def note(event: Event) -> None:
            if isinstance(event, AnchorFailed):
                failed.append(event.error)

        telemetry.listen(note)
        Anchoring(
            chain, incarnation.tenant, proof.anchors, signer=proof.signer, telemetry=telemetry
        ).write(now)
        if failed:
            raise AuditUnavailable(f"it is done, and could not be anchored: {failed[0]}")


def place_of(wanted: str | Path | None) -> bool | Path:
    """Where anchors go, as a setting or an option says: a file, or ``off``; None: beside."""
    if wanted is None or not str(wanted):
        return True
    return False if str(wanted) == "off" else Path(wanted)


def beside(database: Database) -> Path | None:
    """Where anchors are kept unless somebody says otherwise; None beside what is no file."""
    path = database.path
    return None if path is None else path.with_name(f"{path.name}.anchors")


def make_keys(private: Path, public: Path) -> None:
    """Write a new pair of keys; the private one for its owner only.

    Raises:
        AuditUnavailable: a file is there already or cannot be written, or ``cryptography`` is
            not installed.
    """
    serialization, ed25519 = _cryptography()
    key = ed25519.Ed25519PrivateKey.generate()
    encoding = serialization.Encoding.PEM
    secret = key.private_bytes(
        encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    shown = key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    try:
        private.touch(mode=0o600, exist_ok=False)
        private.write_bytes(secret)
        with public.open("xb") as file:
            file.write(shown)
    except OSError as error:
        better = ": name another file" if isinstance(error, FileExistsError) else ""
        raise AuditUnavailable(f"{error.filename}: {error.strerror}{better}") from None


class AnchorFile:
    """Anchors in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, anchor: Anchor) -> None:
        with self.path.open("a+b") as file:
            torn = file.tell() > 0 and not _ends_a_line(file)
            line = json.dumps(asdict(anchor), separators=(",", ":")).encode()
            file.write((b"\n" if torn else b"") + line + b"\n")

    def read(self) -> tuple[list[Anchor], list[int]]:
        """The anchors, and the numbers of the lines that are none.

        Raises:
            AuditUnavailable: the file cannot be read.
        """
        anchors: list[Anchor] = []
        broken: list[int] = []
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    anchor = _parsed(line)
                    if anchor is not None:
                        anchors.append(anchor)
                    elif line.rstrip().endswith(b"}"):  # else a crash cut it short
                        broken.append(number)
        except FileNotFoundError:
            return [], []
        except OSError as error:
            raise AuditUnavailable(f"the anchors {self.path}: {error.strerror}") from None
        return anchors, broken


class Anchoring:
    """Writes the anchors of one chain, for its writer: every 1,000 rows or 60 s of node time
    while there are rows, and at the end. A place that fails is told of once and tried again
    with the next anchor; history goes on meanwhile.
    """

    def __init__(
        self,
        chain: Sealer,
        tenant: bytes,
        place: Callable[[Anchor], None],
        *,
        signer: Signer | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._chain = chain
        self._tenant = tenant.hex()
        self._place = place
        self._signer = signer
        self._telemetry = telemetry
        self._number = 0
        self._last: int | None = None
        self._at = 0.0
        self._failing = False

    def follow(self, before: Anchoring | None) -> None:
        """Go on counting where another left off, if its chain was this one."""
        if before is not None and before._chain.number == self._chain.number:
            self._number, self._last, self._at = before._number, before._last, before._at

    def committed(self, now: float) -> None:
        """All rows of the chain so far are committed."""
        if (
            self._last is None
            or self._chain.head.seq - self._last >= EVERY_ROWS
            or now - self._at >= EVERY_SECONDS
        ):
            self.write(now)

    def write(self, now: float) -> None:
        """Write an anchor now, unless the last one says the same."""
        head = self._chain.head
        if head.seq == self._last:
            return
        anchor = self._made(head, now)
        try:
            self._place(anchor)
        except Exception as error:  # noqa: BLE001 - a place may be anybody's code
            if not self._failing and self._telemetry is not None and self._telemetry.active:
                self._telemetry.emit(AnchorFailed(self._chain.number, str(error)))
            self._failing = True
        else:
            self._number, self._last, self._at = anchor.number, head.seq, now
            self._failing = False

    def _made(self, head: Head, now: float) -> Anchor:
        anchor = Anchor(
            tenant=self._tenant,
            chain=self._chain.number,
            number=self._number + 1,
            seq=head.seq,
            hash=head.hash.hex(),
            at=instant(now).isoformat(),
        )
        return anchor if self._signer is None else self._signer.sign(anchor)


@dataclass(frozen=True, slots=True)
class Proof:
    """What a recorder does for what it writes beside chaining it."""

    anchors: Callable[[Anchor], None] | None = None
    """Where anchors go: an ``AnchorFile``, or whatever takes one and raises if it cannot."""
    signer: Signer | None = None
    mask: Mask | None = None

    @classmethod
    def of(
        cls,
        database: Database,
        *,
        mask: bool | Iterable[str],
        anchors: bool | str | Path | Callable[[Anchor], None],
        signing_key: str | Path | None,
    ) -> Proof:
        """What ``Audit`` was told, ready for use.

        Raises:
            AuditUnavailable: the key cannot be used, or anchors would go into the database.
            InvalidSettings: something to mask that nobody knows.
        """
        if anchors is True:
            anchors = beside(database) or False
        place = AnchorFile(Path(anchors)) if isinstance(anchors, (str, Path)) else anchors
        if isinstance(place, AnchorFile) and database.owns(place.path):
            raise AuditUnavailable(
                f"anchors cannot go into {place.path}: history itself is kept there"
            )
        return cls(
            anchors=None if isinstance(place, bool) else place,
            signer=None if signing_key is None else Signer(Path(signing_key)),
            mask=None if mask is False else Mask() if mask is True else Mask(mask),
        )

    @property
    def place(self) -> str | None:
        """The words by which a chain remembers where its anchors are."""
        if self.anchors is None:
            return None
        return self.anchors.path.name if isinstance(self.anchors, AnchorFile) else "a callback"

    def anchoring(
        self,
        chain: Sealer,
        incarnation: Incarnation,
        *,
        telemetry: Telemetry,
        before: Anchoring | None = None,
    ) -> Anchoring | None:
        """The anchors of a chain; those of its writer before it connected anew go on."""
        if self.anchors is None:
            return None
        made = Anchoring(
            chain, incarnation.tenant, self.anchors, signer=self.signer, telemetry=telemetry
        )
        made.follow(before)
        return made


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, 2)
    return bool(file.read(1) == b"\n")


def _parsed(line: bytes) -> Anchor | None:
    try:
        anchor = Anchor(**json.loads(line))
        anchor.signed_bytes()
        sound = len(bytes.fromhex(anchor.hash)) == HASH_SIZE and bytes.fromhex(anchor.tenant)
    except (ValueError, TypeError, AttributeError):
        return None
    whole = all(type(value) is int for value in (anchor.chain, anchor.number, anchor.seq))
    return anchor if sound and whole else None


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise AuditUnavailable(
            "signed anchors need the package cryptography: pip install 'actorbus[signed]'"
        ) from None
    return serialization, ed25519


def _loaded(path: Path, load: Callable[[bytes], Any]) -> Any:
    if is_key(str(path)):  # no error may show it
        raise AuditUnavailable(f"the key: {NAME_A_FILE}")
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise AuditUnavailable(f"the key {path}: {error.strerror}") from None
    except (ValueError, TypeError):
        raise AuditUnavailable(f"{path} holds no key in PEM without a passphrase") from None


def _fingerprint(public: Any) -> str:
    return sha256(public.public_bytes_raw()).hexdigest()[:16]
