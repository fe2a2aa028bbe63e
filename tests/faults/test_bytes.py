"""Fault 19: bytes that somebody made to hurt. Only errors of ours come out, soon and small.

``FUZZ_FRAMES`` of them for each reader, from the seed ``FUZZ_SEED``; `make fuzz` takes 100,000.
"""

from __future__ import annotations

import os
import random
import resource
import time
import tracemalloc
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

import msgpack  # type: ignore[import-untyped]
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel

from actorbus.bus.transports.errors_in_transit import (
    error_fields,
    read_error,
)
from actorbus.bus.transports.pubsub.wire import (
    Word,
    pack_batch,
    read_batch,
)
from actorbus.bus.transports.redis.letters import (
    pack_error,
    pack_message,
    pack_value,
    read_message,
    read_note,
)
from actorbus.codec import ENVELOPE_LIMIT, Codec, TypeBook
from actorbus.codec.signing import Signer, Trust, Verifier
from actorbus.context.stores.redis.records import change_in, signature, written
from actorbus.errors import MailboxFull, Undecodable, Untrusted
from actorbus.message import IdSource, Message, MessageId, MessageKind, Priority

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FRAMES: Final = int(os.environ.get("FUZZ_FRAMES", "2000"))
SEED: Final = int(os.environ.get("FUZZ_SEED", "19"))
AT_LENGTH: Final = FRAMES >= 100_000
SLOWEST: Final = {"largest": 5.0, "other": 0.25}
"""Seconds that none may take, at length, on a machine that does other things as well: of those
as large as may come, and of all others. What is sought are those that take minutes."""
GROWTH: Final = 256 << 20
"""Bytes by which a whole run may grow the process."""
LIMIT: Final = 1 << 20
NOW: Final = 1_800_000_000.0


class Color(Enum):
    RED = "red"


class Text(BaseModel):
    body: str
    size: int = 0
    others: list[Text] = []


@dataclass
class Point:
    x: float
    tags: set[str] = field(default_factory=set)


def a_payload() -> Any:
    return {
        "text": Text(body="hello", others=[Text(body="x")]),
        "points": [Point(1.5, {"a", "b"}), (1, 2), {1, 2}, frozenset({b"x"})],
        "odd": [1 << 100, datetime(2026, 1, 1, tzinfo=UTC), date(2026, 1, 1), timedelta(1)],
        "more": [UUID(int=7), Decimal("1.5"), Color.RED, None, True, float("nan"), b"\x00"],
    }


def a_message() -> Message[Any]:
    ids = IdSource()
    first = ids.make(1.0)
    return Message(
        id=first, kind=MessageKind.REQUEST, sender="asker", recipient="counter", topic=None,
        payload=a_payload(), priority=Priority.HIGH, created_at=NOW, deadline=NOW + 30,
        correlation_id=first, causation_id=first, run_id="run", attempt=1, hops=3,
        headers={"traceparent": "00-ab"},
    )  # fmt: skip


class Hostile(NamedTuple):
    kind: str
    data: bytes


class Frames:
    """Hostile frames, made of nothing or of valid ones. The same seed makes the same."""

    def __init__(self, valid: list[bytes], *, seed: int) -> None:
        self._valid = valid
        self._random = random.Random(seed)
        self._kinds: dict[Callable[[], bytes], int] = {
            self.noise: 10,
            self.cut_short: 15,
            self.with_bits_flipped: 30,
            self.spliced: 15,
            self.with_more_behind: 5,
            self.with_another_value: 30,
            self.with_a_wrong_tag: 20,
            self.declaring_much: 10,
            self.of_extensions: 5,
            self.with_a_key_twice: 5,
            self.not_utf_8: 5,
        }

    def make(self, count: int) -> Iterator[Hostile]:
        """`count` frames; one in 500 is as large as may come, as those cost most."""
        kinds, weights = list(self._kinds), list(self._kinds.values())
        for number in range(count):
            if number % 500 == 250:
                name, make = self._random.choice(LARGEST)
                yield Hostile(name, make(LIMIT))
            else:
                [kind] = self._random.choices(kinds, weights)
                yield Hostile(kind.__name__, kind())

    def noise(self) -> bytes:
        return self._random.randbytes(self._random.randrange(64))

    def cut_short(self) -> bytes:
        one = self._one()
        return one[: self._random.randrange(len(one))]

    def with_bits_flipped(self) -> bytes:
        changed = bytearray(self._one())
        for _ in range(self._random.choice((1, 1, 1, 2, 4, 16))):
            changed[self._random.randrange(len(changed))] ^= 1 << self._random.randrange(8)
        return bytes(changed)

    def spliced(self) -> bytes:
        one, other = self._one(), self._one()
        start, end = sorted(self._random.choices(range(len(one) + 1), k=2))
        first, last = sorted(self._random.choices(range(len(other) + 1), k=2))
        return one[:start] + other[first:last] + one[end:]

    def with_more_behind(self) -> bytes:
        return self._one() + self._random.randbytes(self._random.randrange(1, 20))

    def with_another_value(self) -> bytes:
        """A valid frame in which one value somewhere is another."""
        try:
            frame = msgpack.unpackb(self._one(), strict_map_key=False)
        except Exception:  # what is valid need not be msgpack
            return self.spliced()
        return bytes(msgpack.packb(self._changed(frame)))

    def with_a_wrong_tag(self) -> bytes:
        code = self._random.randrange(-1, 13)
        arguments = [self._value() for _ in range(self._random.randrange(5))]
        return bytes(msgpack.packb([1, {None: [code, *arguments]}]))

    def declaring_much(self) -> bytes:
        head = self._random.choice((b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"))
        size = self._random.choice(_SIZES)
        return b"\x92\x01" + head + size.to_bytes(4, "big") + self.noise()

    def of_extensions(self) -> bytes:
        code, data = self._random.randrange(-128, 128), self.noise()
        value = msgpack.ExtType(code, data) if code >= 0 else msgpack.Timestamp(7, 7)
        return bytes(msgpack.packb(self._random.choice(([1, value], [1, [value]], value))))

    def with_a_key_twice(self) -> bytes:
        key = bytes(msgpack.packb(self._random.choice(("k", b"k", 1, 1.0, None, True))))
        return b"\x92\x01\x82" + (key + b"\x01") * 2

    def not_utf_8(self) -> bytes:
        text = self._random.choice((b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"))
        return self._random.choice((b"\x92\x01", b"\x93\x01")) + bytes([0xA0 | len(text)]) + text

    def _one(self) -> bytes:
        return self._random.choice(self._valid)

    def _changed(self, value: Any) -> Any:
        if self._random.random() < 0.15:
            return self._value()
        if isinstance(value, list) and value:
            at = self._random.randrange(len(value))
            return [*value[:at], self._changed(value[at]), *value[at + 1 :]]
        if isinstance(value, dict) and value:
            key = self._random.choice(list(value))
            return {**value, key: self._changed(value[key])}
        return self._value()

    def _value(self) -> Any:
        return self._random.choice(_VALUES)


_SIZES: Final = ((1 << 32) - 1, 1 << 31, 1 << 20, 1 << 16, 100)
_NAMES: Final = [f"{__name__}:{name}" for name in ("Text", "Point", "Color", "Nobody")]
_VALUES: Final[list[Any]] = [
    None, True, 0, -1, 1, 2, (1 << 64) - 1, -(1 << 63), 0.0, float("nan"), float("inf"), -1e308,
    "", "\x00", "a" * 200, "{p1}", "*", ">", "..", "__class__", "os:system", "\u202e", "1e999999",
    "-inf", "sNaN", "9" * 5_000, "2026-01-01T00:00:00", "0000-00-00", b"", b"\xff" * 16,
    b"x" * 5_000, [], {}, [[]], [None] * 50, [1, 1], {"": None}, {None: []}, {None: [0]},
    {None: {}}, {1: 2}, {b"k": 1}, {"__class__": "x", "__dict__": {}}, {None: [4, b"\x7f" * 99]},
    {None: [0, ["actorbus.errors:ActorbusError"], {}, None]}, {None: [5, "9999-99-99"]},
    {None: [7, 1 << 63, 1 << 63, 1 << 63]}, {None: [9, "NaN"]}, {None: [2, [[], []]]},
    {None: [11, "\n"]}, {None: [10, _NAMES[2], "blue"]}, *_NAMES,
    *({None: [0, [name], {"body": 1, "x": "y"}, ["nothing"]]} for name in _NAMES),
]  # fmt: skip


def _full(unit: bytes, head: bytes, size: int) -> bytes:
    """As many of `unit` as that size has room for, in a list or map of that many."""
    count = (size - 16) // len(unit)
    return b"\x92\x01" + head + count.to_bytes(4, "big") + unit * count


def _promises(size: int) -> bytes:
    """Lists in one another, each of which says that it is as long as all bytes together."""
    lists = b"\x92\x01" + (b"\xdd" + (size - 3_000).to_bytes(4, "big")) * 500
    return lists + b"\xc0" * (size - len(lists))


LARGEST: Final[list[tuple[str, Callable[[int], bytes]]]] = [
    ("lists in lists", lambda size: b"\x92\x01" + b"\x91" * (size - 3) + b"\xc0"),
    ("maps in maps", lambda size: b"\x92\x01" + b"\x81\xa0" * (size // 2 - 2) + b"\xc0"),
    ("tags in tags", lambda size: b"\x92\x01" + b"\x81\xc0\x92\x01\x91" * (size // 5 - 1)),
    ("nils", lambda size: _full(b"\xc0", b"\xdd", size)),
    ("empty lists", lambda size: _full(b"\x90", b"\xdd", size)),
    ("empty maps", lambda size: _full(b"\x80", b"\xdd", size)),
    ("promises of more", _promises),
    ("a key again and again", lambda size: _full(b"\xa0\xc0", b"\xdf", size)),
    ("extensions", lambda size: _full(b"\xd4\x01\x00", b"\xdd", size)),
    ("more than may come", lambda size: b"\xc1" * (4 * size)),
]
"""Each as large as may come: a million values in one another, or beside one another."""


class Reader(NamedTuple):
    """Something that reads untrusted bytes."""

    name: str
    read: Callable[[bytes], object]
    valid: list[bytes]
    raises: tuple[type[Exception], ...] = (Undecodable,)


@cache
def readers() -> tuple[Reader, ...]:
    codec = Codec(TypeBook(), limit=LIMIT)
    payload, message = codec.encode_payload(a_payload()), codec.encode(a_message())
    key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    verifier = Verifier({"eu-1": [key.public_key()]}, limit=LIMIT)
    sealed = Signer(key, "eu-1").seal("counter", message, NOW)
    frames: list[list[Any]] = [
        [Word.MESSAGE, message], [Word.REPLY, b"x" * 16, payload], [Word.CANCEL, b"x" * 16],
        [Word.ERROR, b"x" * 16, *error_fields(MailboxFull("a", 7))], [Word.UP, 1, "counter"],
        [Word.TABLE, 1, 0, 1, ["counter", "editor"]], [Word.WHO], [Word.BEAT, 7], [99, "new"],
    ]  # fmt: skip
    record = _record(codec)
    return (
        Reader("message", codec.decode, [message]),
        Reader("payload", codec.decode_payload, [payload, codec.encode_payload("plain")]),
        Reader(
            "letter",
            lambda data: read_message(codec, data, 0.5),
            [pack_message(codec, a_message(), 0.5, asker) for asker in (None, "eu-1~00ff")],
        ),
        Reader(
            "note",
            lambda data: read_note(codec, data, lambda _: "counter"),
            [
                pack_value(codec, MessageId(7), a_payload()),
                pack_error(MessageId(7), MailboxFull("counter", 7)),
            ],
        ),
        Reader("batch", _read_batch, [pack_batch("eu-1", frames), pack_batch("eu-2", [[8]])]),
        Reader(
            "seal",
            lambda data: verifier.open("counter", data, NOW, again=True),
            [sealed],
            (Undecodable, Untrusted),
        ),
        Reader(
            "seal, unverified",
            lambda data: codec.decode(Trust(2 * LIMIT).open("x", data, NOW).blob),
            [sealed, message],
        ),
        Reader("context", lambda data: change_in(b"key", data, codec), record),
    )


def _read_batch(data: bytes) -> None:
    _, frames = read_batch(data, LIMIT + ENVELOPE_LIMIT)
    for frame in frames:
        if frame[0] == Word.ERROR:
            str(read_error("counter", *frame[2:]))


def _record(codec: Codec) -> list[bytes]:
    records = []
    for value in (7, 1.5, a_payload()):
        kind, data = written(value, codec)
        author = signature("counter")
        size, _, name = author.partition(b"\n")
        head = b"3 1800000000000000 %b %b\n" % (kind.encode(), size)
        records.append(head + name + data)
    return records


NAMES: Final = [reader.name for reader in readers()]


@pytest.fixture(params=NAMES)
def reader(request: pytest.FixtureRequest) -> Reader:
    return readers()[NAMES.index(request.param)]


def test_what_is_valid_is_read(reader: Reader) -> None:
    for data in reader.valid:
        reader.read(data)


@pytest.mark.timeout(900)
def test_nothing_hostile_gets_anything_out_but_our_own_error(
    reader: Reader, capsys: pytest.CaptureFixture[str]
) -> None:
    ends: Counter[str] = Counter()
    slowest = dict.fromkeys(SLOWEST, (0.0, ""))
    longest = 0
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    for number, (kind, data) in enumerate(Frames(reader.valid, seed=SEED).make(FRAMES)):
        began = time.perf_counter()
        try:
            reader.read(data)
            ends["read"] += 1
        except reader.raises as error:
            ends[type(error).__name__] += 1
            longest = max(longest, len(str(error)))
        except BaseException as error:
            pytest.fail(f"frame {number} of seed {SEED}, {kind}: {error!r} of {data[:200]!r}")
        size = "largest" if len(data) > LIMIT // 2 else "other"
        slowest[size] = max(slowest[size], (time.perf_counter() - began, kind))

    assert ends.total() - ends["read"] > FRAMES // 2
    assert longest < 2_000
    if AT_LENGTH:
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - grown) << 10
        with capsys.disabled():
            print(f"\n{reader.name}: {dict(ends)}; slowest in s: {slowest}")  # noqa: T201
        for size, most in SLOWEST.items():
            assert slowest[size][0] < most
        assert grown < GROWTH


@pytest.mark.parametrize("make", [make for _, make in LARGEST], ids=[name for name, _ in LARGEST])
@pytest.mark.parametrize("of", ["payload", "batch"])
def test_the_largest_take_no_more_than_a_hundred_times_their_size(
    of: str, make: Callable[[int], bytes]
) -> None:
    size = LIMIT if AT_LENGTH else LIMIT // 16
    reader = readers()[NAMES.index(of)]
    data = make(size)

    tracemalloc.start()
    try:
        reader.read(data)
    except reader.raises:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert peak < 100 * size


def test_the_reader_reads_on_after_all_that(reader: Reader) -> None:
    for _, data in Frames(reader.valid, seed=SEED + 1).make(100):
        try:
            reader.read(data)
        except reader.raises:
            continue

    for data in reader.valid:
        reader.read(data)


def test_a_seed_makes_the_same_frames_again() -> None:
    valid = readers()[0].valid

    once, again = (list(Frames(valid, seed=SEED).make(200)) for _ in range(2))

    assert once == again
    assert len(set(once)) > 150
