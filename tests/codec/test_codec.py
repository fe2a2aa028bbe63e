"""What travels comes back as it was; what cannot says where it is; bytes are never trusted."""

from __future__ import annotations

import math
import socket
import struct
import subprocess
import sys
import threading
import tracemalloc
from contextlib import suppress
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, Flag, IntEnum, StrEnum, auto
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar
from uuid import UUID

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import (
    AnyUrl,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    SecretStr,
    create_model,
    field_validator,
)

from actorbus.codec import ENVELOPE_LIMIT, MAX_DEPTH, WIRE_VERSION, Codec, TypeBook, source_name
from actorbus.codec.envelope import MESSAGE_VERSION
from actorbus.errors import PayloadTooLarge, Undecodable, UnsupportedPayload
from actorbus.message import IdSource, Message, MessageId, MessageKind, Priority

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
LIMIT = 1 << 20
FEWEST: Final = 16_384
"""Lists and dicts that any limit allows."""
UNITS: Final[list[tuple[bytes, Any, int]]] = [
    (b"\x90", [], 1),
    (b"\x80", {}, 1),
    (b"\x91\x90", [[]], 2),
    (b"\x81\xa0\x81\xa0\x80", {"": {"": {}}}, 3),
    (b"\x81\xc0\x92\x01\x90", (), 2),
]
"""As packed, as it is, and how many lists and dicts it counts as."""


class Color(Enum):
    RED = "red"
    BLUE = ("a", 1)


class Level(IntEnum):
    LOW = 1


class Word(StrEnum):
    YES = "yes"


class Access(Flag):
    READ = auto()
    WRITE = auto()


class Text(BaseModel):
    body: str


class Signed(Text):
    author: str


class Letter(BaseModel):
    main: Text
    others: list[Text] = []


@dataclass
class Point:
    x: float
    y: float = 0.0


@dataclass(slots=True, frozen=True)
class Segment:
    ends: tuple[Point, Point]
    name: str = field(default="", kw_only=True)


@dataclass
class Measured:
    values: list[int]
    total: int = field(init=False)

    def __post_init__(self) -> None:
        self.total = sum(self.values)


class Pair(NamedTuple):
    left: int
    right: int


class FakeRef:
    def __init__(self, name: str) -> None:
        self.__actorbus_ref__ = name


def codec(*types: type[Any], limit: int = LIMIT) -> Codec:
    book = TypeBook()
    for cls in types:
        book.add(cls)
    return Codec(book, limit=limit)


def trip(payload: Any) -> Any:
    both = codec()
    return both.decode_payload(both.encode_payload(payload))


def frame(value: Any) -> bytes:
    return bytes(msgpack.packb([WIRE_VERSION, value]))


def tag(*arguments: Any) -> bytes:
    return frame({None: list(arguments)})


def a_message(payload: Any = "hello", **changes: Any) -> Message[Any]:
    ids = IdSource()
    first = ids.make(1.0)
    message: Message[Any] = Message(
        id=ids.make(1.0),
        kind=MessageKind.REQUEST,
        sender="asker",
        recipient="counter",
        topic=None,
        payload=payload,
        priority=Priority.HIGH,
        created_at=1_700_000_000.25,
        deadline=1_700_000_030.25,
        correlation_id=first,
        causation_id=first,
        run_id="run-1",
        attempt=1,
        hops=3,
        headers={"traceparent": "00-ab"},
    )
    return message.copy(**changes)


def fields_of(message: Message[Any]) -> dict[str, Any]:
    names = [name for name in Message.__slots__ if name not in ("_headers", "_type")]
    return {name: getattr(message, name) for name in (*names, "headers", "type")}


# What comes back


keys = st.one_of(st.text(max_size=5), st.binary(max_size=5), st.integers(-(1 << 63), (1 << 64) - 1))
hashables = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 200), 1 << 200),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.uuids(),
    st.decimals(allow_nan=False),
    st.dates(),
    st.timedeltas(),
    st.datetimes(timezones=st.just(UTC) | st.just(timezone(timedelta(hours=5, seconds=7)))),
    st.sampled_from([*Color, *Level, *Word, Access.READ | Access.WRITE]),
)
leaves = st.one_of(
    hashables,
    st.builds(Text, body=st.text(max_size=5)),
    st.builds(Signed, body=st.text(max_size=5), author=st.text(max_size=5)),
    st.builds(Point, st.floats(allow_nan=False), st.floats(allow_nan=False)),
)
payloads = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        st.sets(hashables, max_size=4),
        st.frozensets(hashables, max_size=4),
    ),
    max_leaves=12,
)


def same(left: Any, right: Any) -> bool:
    """Equal in value and in type, all the way down."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


@given(payloads)
@settings(max_examples=300, deadline=None)
def test_a_payload_comes_back_with_its_values_and_types(payload: Any) -> None:
    assert same(trip(payload), payload)


@pytest.mark.parametrize("value", [math.inf, -math.inf, -0.0])
def test_odd_floats_come_back(value: float) -> None:
    back = trip([value])[0]

    assert back == value
    assert math.copysign(1, back) == math.copysign(1, value)


def test_nan_comes_back_as_nan() -> None:
    assert math.isnan(trip({"mean": math.nan})["mean"])


def test_a_datetime_keeps_its_instant_and_its_offset() -> None:
    when = datetime(2026, 3, 1, 12, 0, 0, 7, tzinfo=timezone(timedelta(hours=5, minutes=30)))

    back = trip(when)

    assert (back, back.utcoffset()) == (when, timedelta(hours=5, minutes=30))


def test_a_subclass_in_a_field_of_its_base_keeps_its_own_fields() -> None:
    letter = Letter(main=Signed(body="hi", author="Ada"), others=[Signed(body="b", author="c")])

    back = trip(letter)

    assert back == letter
    assert type(back.main) is Signed


def test_dataclasses_come_back_slotted_frozen_nested_and_with_fields_outside_init() -> None:
    measured = Measured([1, 2])
    measured.total = 99
    segment = Segment((Point(1.0), Point(2.0, 3.0)), name="edge")

    assert trip([segment, measured]) == [segment, measured]


def test_a_model_remembers_which_fields_were_set() -> None:
    class Patch(BaseModel):
        title: str = ""
        body: str = ""

    back = trip(Patch(title="new"))

    assert back.model_dump(exclude_unset=True) == {"title": "new"}


def test_aliases_extras_roots_generics_and_cached_properties_do_not_get_in_the_way() -> None:
    class Box(BaseModel, Generic[T]):
        model_config = ConfigDict(extra="allow", frozen=True)
        held: T = Field(alias="heldThing")

        @cached_property
        def size(self) -> int:
            return 1

    class Words(RootModel[list[str]]):
        pass

    box = Box[int].model_validate({"heldThing": 3, "note": "extra"})
    assert box.size == 1
    words = Words(["a", "b"])

    back_box, back_words = trip([box, words])

    assert type(back_box) is Box[int]
    assert (back_box.held, back_box.model_extra) == (3, {"note": "extra"})
    assert back_words == words


def test_a_model_may_hold_what_has_a_text_form() -> None:
    class Download(BaseModel):
        url: AnyUrl
        to: Path
        mirrors: list[Path] = []

    download = Download(url=AnyUrl("http://a.example/x"), to=Path("/tmp/x"), mirrors=[Path("y")])  # noqa: S108

    assert trip(download) == download


def test_a_ref_travels_as_its_name() -> None:
    both = Codec(TypeBook(), limit=LIMIT, make_ref=lambda name: f"ref to {name}")

    data = both.encode_payload({"reply_to": FakeRef("counter")})

    assert both.decode_payload(data) == {"reply_to": "ref to counter"}
    assert codec().decode_payload(data) == {"reply_to": "counter"}


# Which class is built


def test_a_class_nobody_knows_arrives_as_a_dict_and_is_not_imported() -> None:
    data = codec().encode_payload([Signed(body="hi", author="Ada"), Color.RED, Point(1.0, 2.0)])
    named = tag(0, ["antigravity:Text"], {"body": "x"}, None)

    assert codec().decode_payload(data) == [
        {"body": "hi", "author": "Ada"},
        "red",
        {"x": 1.0, "y": 2.0},
    ]
    assert codec().decode_payload(named) == {"body": "x"}
    assert "antigravity" not in sys.modules


def test_the_nearest_known_base_is_built() -> None:
    data = codec().encode_payload(Signed(body="hi", author="Ada"))

    assert codec(Text).decode_payload(data) == Text(body="hi")
    assert codec(Text, Signed).decode_payload(data) == Signed(body="hi", author="Ada")


def test_a_known_class_brings_the_classes_of_its_fields() -> None:
    data = codec().encode_payload(Letter(main=Text(body="a")))
    edge = codec().encode_payload(Segment((Point(1.0), Point(2.0))))

    assert codec(Letter).decode_payload(data) == Letter(main=Text(body="a"))
    assert codec(Segment).decode_payload(edge) == Segment((Point(1.0), Point(2.0)))


def test_hints_of_any_form_make_their_classes_known() -> None:
    book = TypeBook()

    book.add_hint(dict[str, list[Text] | Point] | None)
    book.add_hint("not resolved")

    assert book.get(source_name(Text)) is Text
    assert book.get(source_name(Point)) is Point
    assert book.get(source_name(Color)) is None


@pytest.mark.parametrize("thing", [str, BaseModel, socket.socket, "Text", None])
def test_only_classes_that_can_be_rebuilt_can_be_added(thing: Any) -> None:
    with pytest.raises(UnsupportedPayload, match="add a dataclass, pydantic model or enum"):
        TypeBook().add(thing)


def test_of_two_classes_with_one_name_the_last_added_is_built() -> None:
    def define(fields: dict[str, Any]) -> type[BaseModel]:
        return create_model("Note", __module__="notebook", **fields)

    old, new = define({"text": (str, "")}), define({"text": (str, ""), "tag": (str, "x")})
    book = TypeBook()
    book.add(old)
    book.add(new)

    back = Codec(book, limit=LIMIT).decode_payload(tag(0, ["notebook:Note"], {"text": "t"}, None))

    assert type(back) is new


def test_the_book_forgets_the_first_name_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actorbus.codec.type_book.KNOWN_CLASSES", 2)
    book = TypeBook()

    for cls in (Text, Point, Color):
        book.add(cls)

    assert [book.get(source_name(cls)) for cls in (Text, Point, Color)] == [None, Point, Color]


def test_a_class_of_the_program_has_the_name_it_would_be_imported_by(tmp_path: Path) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    script = package / "orders.py"
    script.write_text(
        "from actorbus.codec import source_name\nclass Order: ...\nprint(source_name(Order))\n"
    )

    def run(*arguments: str) -> str:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout.strip()

    assert run(str(script)) == "shop.orders:Order"
    assert run("-m", "shop.orders") == "shop.orders:Order"


def test_versions_of_a_class_understand_each_other() -> None:
    names = [source_name(Text)]
    newer = tag(0, names, {"body": "hi", "added_later": 1}, None)
    older = tag(0, [source_name(Point)], {"x": 1.0}, None)

    assert codec(Text).decode_payload(newer) == Text(body="hi")
    assert codec(Point).decode_payload(older) == Point(1.0, 0.0)


# What cannot be carried


@pytest.mark.parametrize(
    ("payload", "sentence"),
    [
        (object(), "payload: an object cannot be carried; send str, number, bytes, list"),
        ({"order": {"lines": [1, {"price": object()}]}}, r"^order\.lines\[1\]\.price: an object"),
        ({"a b": {3: [object()]}}, r"^\['a b'\]\[3\]\[0\]: an object cannot be carried"),
        (Segment((Point(1), Point(object()))), r"^Segment\.ends\[1\]\.x: an object"),  # type: ignore[arg-type]
        ([datetime(2026, 1, 1)], r"^\[0\]: a datetime without a time zone .*datetime\.now\(UTC\)"),  # noqa: DTZ001
        ({1.5: "x"}, r"^\[1\.5\]: a float cannot be carried as a key; use str, bytes or int"),
        ({True: "x"}, "a bool cannot be carried as a key"),
        ({None: [8, b"x"]}, "a NoneType cannot be carried as a key"),
        ({1 << 64: 1}, "a key of more than 64 bits"),
        ({(1, 2): 1}, "a tuple cannot be carried as a key"),
        ({Word.YES: 1}, "a Word cannot be carried as a key"),
        (Pair(1, 2), "a Pair cannot be carried; send the tuple of it"),
        (["ok", {"name": "\ud800"}], r"^\[1\]\.name: text that is not valid Unicode"),
        ({"\ud800": 1}, "text that is not valid Unicode"),
        (Text, "cannot be carried"),
        (ValueError("x"), "a ValueError cannot be carried"),
    ],
)
def test_what_cannot_be_carried_says_where_it_is_and_what_to_send(
    payload: Any, sentence: str
) -> None:
    with pytest.raises(UnsupportedPayload, match=sentence):
        codec().check(payload)


def test_a_secret_is_not_carried_even_where_pydantic_would_write_stars() -> None:
    class Login(BaseModel):
        user: str
        password: SecretStr

    with pytest.raises(UnsupportedPayload, match=r"Login\.password: a SecretStr is kept out") as no:
        codec().encode_payload(Login(user="ada", password=SecretStr("hunter2")))

    assert "hunter2" not in str(no.value)


def test_objects_that_could_not_be_rebuilt_are_refused_when_they_are_sent() -> None:
    @dataclass
    class Seeded:
        seed: InitVar[int]
        value: int = 0

    class Hidden(BaseModel):
        token: str = Field(exclude=True)

    class Grows(BaseModel):
        name: str

        @field_validator("name")
        @classmethod
        def only_once(cls, name: str) -> str:
            if name.startswith("mr "):
                raise ValueError(name)
            return f"mr {name}"

    with pytest.raises(UnsupportedPayload, match="Seeded cannot be rebuilt: seed is not both"):
        codec().check(Seeded(1))
    with pytest.raises(UnsupportedPayload, match=r"Hidden\.token is marked exclude"):
        codec().check(Hidden(token="t"))  # noqa: S106
    with pytest.raises(UnsupportedPayload, match=r"Grows refuses name \(value_error\)"):
        codec().check(Grows(name="fox"))


def test_a_payload_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)

    with pytest.raises(UnsupportedPayload, match="or holding itself"):
        codec().encode_payload(loop)


@pytest.mark.parametrize(
    "wrap",
    [lambda one: [one], lambda one: (one,), lambda one: {"k": one}],
    ids=["list", "tuple", "dict"],
)
def test_depth_is_bounded_alike_on_both_sides(wrap: Callable[[Any], Any]) -> None:
    deepest: Any = 1
    for _ in range(MAX_DEPTH):
        deepest = wrap(deepest)

    assert trip(deepest) == deepest
    with pytest.raises(UnsupportedPayload, match="nested deeper than 100 levels"):
        codec().encode_payload(wrap(deepest))


def test_a_small_payload_that_would_unfold_without_end_is_refused_quickly() -> None:
    bomb: list[Any] = ["ha"]
    for _ in range(60):
        bomb = [bomb] * 10

    with pytest.raises(PayloadTooLarge):
        codec(limit=10_000).encode_payload(bomb)


@settings(max_examples=60)
@given(unit=st.sampled_from(UNITS), extra=st.integers(-40, 40))
def test_lists_and_dicts_are_bounded_alike_on_both_sides(
    unit: tuple[bytes, Any, int], extra: int
) -> None:
    packed, value, containers = unit
    codec = Codec(TypeBook(), limit=8 * FEWEST)
    count = FEWEST // containers + extra
    data = b"\x92\x01\xdd" + count.to_bytes(4, "big") + packed * count

    if 2 + count * containers <= FEWEST:
        assert codec.encode_payload([value] * count) == b"\x92\x01\xdc" + data[5:]
        assert codec.decode_payload(data) == [value] * count
    else:
        with pytest.raises(UnsupportedPayload, match="payload_limit"):
            codec.encode_payload([value] * count)
        with pytest.raises(Undecodable, match="16,384 lists and dicts"):
            codec.decode_payload(data)


def test_a_binary_payload_of_bytes_that_lists_begin_with_is_no_list() -> None:
    codec = Codec(TypeBook(), limit=LIMIT)
    payload = b"\x90" * (LIMIT - 100)

    assert codec.decode_payload(codec.encode_payload(payload)) == payload


def test_lists_that_promise_more_than_comes_take_no_memory_for_it() -> None:
    codec = Codec(TypeBook(), limit=LIMIT)
    promises = b"\x92\x01" + (b"\xdd" + (LIMIT // 2).to_bytes(4, "big")) * 500
    data = promises + b"\xc0" * (LIMIT // 2)

    tracemalloc.start()
    with pytest.raises(Undecodable, match="cut short"):
        codec.decode_payload(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 4 * len(data)


def test_the_limit_is_exact() -> None:
    size = len(codec().encode_payload("x" * 1_000))

    codec(limit=size).check("x" * 1_000)
    with pytest.raises(PayloadTooLarge) as refused:
        codec(limit=size - 1).check("x" * 1_000)
    assert (refused.value.size, refused.value.limit) == (size, size - 1)


# Messages


def test_a_message_comes_back_whole() -> None:
    message = a_message(Text(body="hi"))

    back = codec(Text).decode(codec().encode(message))

    assert fields_of(back) == fields_of(message)


def test_a_message_of_an_unknown_class_keeps_the_name_of_its_type() -> None:
    event = a_message(
        Text(body="hi"),
        kind=MessageKind("brand-new"),
        topic="prices.eur",
        recipient=None,
        sender=None,
        causation_id=None,
        run_id=None,
        deadline=None,
        headers=None,
    )

    back = codec().decode(codec().encode(event))

    assert fields_of(back) == fields_of(event) | {"payload": {"body": "hi"}}
    assert back.type == "Text"


def test_headers_that_are_no_text_or_too_long_are_refused() -> None:
    with pytest.raises(UnsupportedPayload, match=r"headers\.retries: keys and values of headers"):
        codec().encode(a_message(headers={"retries": 3}))
    with pytest.raises(UnsupportedPayload, match="the headers hold text that is not valid Unicode"):
        codec().encode(a_message(headers={"a": "\ud800"}))
    with pytest.raises(UnsupportedPayload, match="beside its payload, the limit is 65,536"):
        codec().encode(a_message(headers={"a": "x" * ENVELOPE_LIMIT}))


def test_a_message_of_the_largest_payload_still_fits() -> None:
    size = len(codec().encode_payload("x" * 1_000))
    both = codec(limit=size)

    assert both.decode(both.encode(a_message("x" * 1_000))).payload == "x" * 1_000


HEAD: Final = ("id", "correlation", "causation", "created_at", "deadline", "attempt", "hops")
HEAD_FORM: Final = struct.Struct(">16s16s16sddII")
LABEL: Final = ("kind", "sender", "recipient", "topic", "priority", "run", "type", "headers")


def envelope_with(**changes: Any) -> bytes:
    """A message of which some fields are others: of its frame, of its head or of its label."""
    _, head, label, payload = msgpack.unpackb(codec().encode(a_message()))
    fields = dict(zip(HEAD, HEAD_FORM.unpack(head), strict=True))
    names = dict(zip(LABEL, msgpack.unpackb(label)[1:], strict=True))
    fields.update({name: changes[name] for name in HEAD if name in changes})
    names.update({name: changes[name] for name in LABEL if name in changes})
    head = changes.get("head", HEAD_FORM.pack(*fields.values()))
    label = changes.get("label", msgpack.packb([MESSAGE_VERSION, *names.values()]))
    return bytes(msgpack.packb([MESSAGE_VERSION, head, label, changes.get("payload", payload)]))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("head", b"short"),
        ("head", 5),
        ("head", None),
        ("created_at", math.nan),
        ("created_at", math.inf),
        ("deadline", -math.inf),
        ("attempt", 1 << 31),
        ("hops", (1 << 32) - 1),
        ("label", None),
        ("label", "text"),
        ("label", [1]),
        ("label", b""),
        ("label", b"\xc1"),
        ("label", b"\x91\x02"),
        ("kind", ""),
        ("kind", 7),
        ("sender", "a\x1bb"),
        ("recipient", ["x"]),
        ("topic", "a..b"),
        ("priority", 9),
        ("priority", None),
        ("priority", True),
        ("run", 1),
        ("run", ""),
        ("run", "a\x1bb"),
        ("run", "x" * 129),
        ("type", None),
        ("headers", {"a": 1}),
        ("headers", [1]),
        ("payload", "not bytes"),
        ("payload", b"\xc1"),
    ],
)
def test_a_wrong_field_of_the_envelope_is_undecodable(field: str, value: Any) -> None:
    data = envelope_with(**{field: value})

    for _ in range(2):  # what was refused once is not known the second time
        with pytest.raises(Undecodable):
            codec().decode(data)


def test_an_envelope_of_another_version_says_so() -> None:
    with pytest.raises(Undecodable, match="wire version 1, and this node reads 2"):
        codec().decode(msgpack.packb([1, b"", b"", b""]))


def test_what_is_remembered_of_labels_is_bounded() -> None:
    both = codec()

    for number in range(10_000):
        message = a_message(recipient=f"agent-{number}", headers=None)
        assert both.decode(both.encode(message)).recipient == message.recipient

    assert len(both._envelopes._packed) <= 4_096
    assert len(both._envelopes._labels) <= 4_096


# Bytes that are not to be trusted


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "cut short"),
        (b"\xc1", "cut short"),
        (frame(1) + b"\x00", "bytes after the end"),
        (frame("hello")[:-1], "cut short"),
        (b"\x92\x01\xa1\xff", "not UTF-8"),
        (msgpack.packb(1), "not a frame of ours"),
        (msgpack.packb({"a": 1}), "not a frame of ours"),
        (msgpack.packb([2, "x"]), "wire version 2, and this node reads 1"),
        (msgpack.packb([True, "x"]), "not a frame of ours"),
        (msgpack.packb([1, 2, 3]), "a frame of 3 fields where 2 were expected"),
        (frame(msgpack.ExtType(5, b"")), "extension type"),
        (frame(msgpack.ExtType(5, b"abc")), "cut short|extension"),
        (frame(msgpack.Timestamp(1)), "cut short|extension"),
        (b"\x92\x01\x82\xa1a\x01\xa1a\x02", "same key twice"),
        (b"\x92\x01\x82\xa1a\x01\xc0\x91\x00", "other than str, bytes or int"),
        (frame({1.5: 1}), "other than str, bytes or int"),
        (b"\x92\x01\x81\x90\x01", "other than str, bytes or int"),
        (b"\x92\x01\xdd\xff\xff\xff\xff", "cut short"),
        (b"\x92\x01\xdf\xff\xff\xff\xff", "cut short"),
        (b"\x92\x01" + b"\x91" * 200 + b"\x01", "nested deeper than 100 levels"),
        (b"\x91" * 1_000_000, "nested deeper|cut short"),
        (b"\x92\x01" + b"\x81\xc0\x92\x01\x91" * 300 + b"\xc0", "nested deeper"),
        (tag(), "a tag that this version does not know"),
        (tag(99), "a tag that this version does not know"),
        (tag(8, b"short"), "ValueError"),
        (tag(8, [0] * 16), "a tag that this version does not know"),
        (tag(9, "twelve"), "InvalidOperation"),
        (tag(5, "2026-01-01T00:00:00"), "without a time zone"),
        (tag(6, "yesterday"), "ValueError"),
        (tag(7, 1 << 62, 0, 0), "OverflowError"),
        (tag(2, [[1]]), "TypeError"),
        (tag(2, [1, 1]), "same value twice"),
        (tag(11, "bad\x00name"), "InvalidName"),
        (tag(0, [["x"]], {}, None), "TypeError"),
        ("text", "a str where bytes were expected"),
    ],
)
def test_wrong_bytes_are_undecodable_with_a_reason(data: Any, reason: str) -> None:
    with pytest.raises(Undecodable, match=reason):
        codec().decode_payload(data)


def test_the_size_is_checked_before_anything_is_unpacked() -> None:
    with pytest.raises(Undecodable, match="5,000,006 bytes, the limit is 1,048,576"):
        codec().decode_payload(
            b"\x92\x01\xdd" + (5_000_000).to_bytes(4, "big")[1:] + b"\xc0" * 5_000_000
        )


@pytest.mark.parametrize("code", [2, 3])
def test_a_set_made_of_colliding_values_is_refused_before_it_is_built(code: int) -> None:
    prime = sys.hash_info.modulus
    ids = [{None: [8, UUID(int=1 + prime * n).bytes]} for n in range(50_000)]
    data = tag(code, ids)

    with pytest.raises(Undecodable, match="chosen to be slow"):
        codec(limit=1 << 22).decode_payload(data)


def test_a_model_checks_what_arrives_and_its_error_shows_no_payload() -> None:
    data = tag(0, [source_name(Text)], {"body": ["hunter2"]}, None)
    key = tag(0, [source_name(Letter)], {"main": {"body": "x"}, "others": {"hunter2": 1}}, None)

    with pytest.raises(Undecodable, match=r"^Text refuses body \(string_type\)$") as wrong:
        codec(Text).decode_payload(data)
    with pytest.raises(Undecodable, match=r"^Letter refuses others \(list_type\)$"):
        codec(Letter).decode_payload(key)

    assert wrong.value.__cause__ is None
    assert wrong.value.__suppress_context__


def test_a_constructor_that_raises_makes_the_bytes_undecodable() -> None:
    @dataclass
    class Picky:
        value: int

        def __post_init__(self) -> None:
            if self.value < 0:
                raise KeyError("hunter2")

    data = tag(0, [source_name(Picky)], {"value": -1}, None)

    with pytest.raises(Undecodable, match=r"Picky cannot be rebuilt: KeyError$"):
        codec(Picky).decode_payload(data)


def test_a_wrong_member_of_a_known_enum_is_undecodable() -> None:
    with pytest.raises(Undecodable, match="ValueError"):
        codec(Color).decode_payload(tag(10, source_name(Color), "mauve"))


KNOWN = (Text, Signed, Letter, Point, Segment, Measured, Color, Level, Word, Access)


def survives(data: bytes) -> None:
    """Whatever the bytes are: Undecodable, or a value that can be sent again."""
    reader = codec(*KNOWN)

    def payload_of_message(data: bytes) -> Any:
        return reader.decode(data).payload

    for decode in (reader.decode_payload, payload_of_message):
        with suppress(Undecodable):
            reader.check(decode(data))


def outcome(codec: Codec, data: bytes) -> Any:
    """What comes of it, in words that tell apart what is equal: 1, 1.0 and True."""
    try:
        return repr(codec.decode_payload(data))
    except Undecodable as error:
        return str(error)


_SOME = st.integers() | st.floats() | st.booleans() | st.none() | st.text() | st.binary()


@given(
    pairs=st.lists(
        st.tuples(
            st.sampled_from(["a", "b", b"a", 1, None, 1.0]),
            _SOME.filter(lambda one: type(one) is not int or abs(one) < 1 << 63)
            | st.sampled_from([[], {}, {None: [1, []]}, msgpack.ExtType(1, b""), [{"a": 1}]]),
        ),
        max_size=3,
    ),
    cut=st.integers(0, 2),
    more=st.binary(max_size=1),
    limit=st.sampled_from([4, 16, LIMIT]),
)
@example([("a", msgpack.ExtType(1, b""))], 0, b"", LIMIT)
@example([("a", 1), ("a", 2)], 0, b"", LIMIT)
def test_what_the_payload_before_was_changes_nothing(
    pairs: list[tuple[Any, Any]], cut: int, more: bytes, limit: int
) -> None:
    packer = msgpack.Packer()
    data = b"\x92\x01" + packer.pack_map_pairs(pairs)
    data = data[: len(data) - cut] + more
    after_a_flat_dict = Codec(TypeBook(), limit=limit)
    after_a_flat_dict.decode_payload(b"\x92\x01\x80")
    after_a_list = Codec(TypeBook(), limit=limit)
    after_a_list.decode_payload(b"\x92\x01\x90")

    assert outcome(after_a_flat_dict, data) == outcome(after_a_list, data)


@given(st.binary(max_size=200))
@settings(max_examples=1_000, deadline=None)
def test_any_bytes_decode_or_are_undecodable(data: bytes) -> None:
    survives(data)
    survives(b"\x92\x01" + data)


VALID = [
    codec().encode_payload(
        [Letter(main=Signed(body="hi", author="Ada")), Color.BLUE, {"a": (1, 2)}]
    ),
    codec().encode_payload([Segment((Point(1.0), Point(2.0))), Measured([1]), {1, 2, 1 << 90}]),
    codec().encode_payload(
        [UUID(int=7), Decimal("1.5"), date(2026, 1, 1), timedelta(1), FakeRef("counter")]
    ),
    codec().encode(a_message({"deep": [[[b"x"]]], "when": datetime(2026, 1, 1, tzinfo=UTC)})),
]


@given(
    st.sampled_from(VALID),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=4),
    st.sampled_from(["set", "insert", "cut"]),
)
@settings(max_examples=2_000, deadline=None)
def test_a_damaged_frame_decodes_or_is_undecodable(
    data: bytes, damage: list[tuple[int, int]], how: str
) -> None:
    damaged = bytearray(data)
    for place, byte in damage:
        at = place % len(damaged)
        match how:
            case "set":
                damaged[at] = byte
            case "insert":
                damaged.insert(at, byte)
            case _:
                del damaged[at : at + 1 + byte % 8]
        damaged = damaged or bytearray(b"\x00")

    survives(bytes(damaged))


# Anywhere, and often


def test_many_threads_may_share_a_codec() -> None:
    shared = codec()
    payloads = [Letter(main=Signed(body=str(n), author="Ada")) for n in range(200)]
    wrong: list[Any] = []

    def work() -> None:
        for payload in payloads:
            back = shared.decode_payload(shared.encode_payload(payload))
            if back != payload:
                wrong.append(back)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


def test_an_id_of_any_size_travels() -> None:
    message = a_message(id=MessageId((1 << 128) - 1), correlation_id=MessageId(0))

    back = codec().decode(codec().encode(message))

    assert (back.id, back.correlation_id) == ((1 << 128) - 1, 0)
