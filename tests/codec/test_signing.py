"""Who sealed a blob is known, and what was changed, moved, kept or repeated is refused."""

from __future__ import annotations

import stat
import threading
from typing import TYPE_CHECKING, Any, Final

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from actorbus.codec import Codec, TypeBook
from actorbus.codec.signing import (
    NODE_HEADER,
    SEAL_LIMIT,
    Distrust,
    Opened,
    Signer,
    Trust,
    Verifier,
    is_sealed,
    make_keys,
    private_key,
    sealing,
    trusted_keys,
    vouched,
)
from actorbus.codec.signing.keys import public_line
from actorbus.codec.signing.replays import Replays
from actorbus.errors import InvalidName, InvalidSettings, Undecodable, Untrusted
from actorbus.message import IdSource, Message, MessageKind, Priority
from actorbus.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

NOW: Final = 1_800_000_000.0
LIMIT: Final = 10_000
KEY: Final = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
OTHER: Final = Ed25519PrivateKey.from_private_bytes(b"o" * 32)


def signer(key: Any = KEY, node: str = "eu-1", **more: Any) -> Signer:
    return Signer(key, node, **more)


def verifier(*keys: Any, **more: Any) -> Verifier:
    trusted = {"eu-1": [key.public_key() for key in keys or (KEY,)]}
    return Verifier(trusted, limit=LIMIT, **more)


def why_refused(sealed: bytes, *, by: Verifier | None = None, **more: Any) -> Any:
    arguments = {"recipient": "counter", "now": NOW, **more}
    with pytest.raises(Untrusted) as refused:
        (by or verifier()).open(sealed=sealed, **arguments)
    return refused.value.why


class TestSealing:
    def test_what_a_trusted_node_sealed_opens_where_it_was_sent_to(self) -> None:
        sealed = signer().seal("counter", b"blob", NOW, level=2)

        assert verifier().open("counter", sealed, NOW + 1, level=2) == Opened("eu-1", b"blob")

    @given(st.text(max_size=60), st.binary(max_size=200), st.integers(0, 3))
    @settings(max_examples=50, deadline=None)
    def test_whatever_the_recipient_and_the_blob_are(
        self, recipient: str, blob: bytes, level: int
    ) -> None:
        sealed = signer().seal(recipient, blob, NOW, level=level)

        assert verifier().open(recipient, sealed, NOW, level=level).blob == blob
        assert len(sealed) <= len(blob) + SEAL_LIMIT

    def test_a_seal_is_no_frame_and_a_frame_is_no_seal(self) -> None:
        codec = Codec(TypeBook(), limit=LIMIT)
        plain = codec.encode_payload("hello")

        sealed = signer().seal("counter", plain, NOW)

        assert (is_sealed(plain), is_sealed(sealed)) == (False, True)
        with pytest.raises(Undecodable):
            codec.decode_payload(sealed)

    def test_a_name_that_has_no_room_in_a_seal_is_refused_by_its_signer(self) -> None:
        with pytest.raises(ValueError, match="at most 255"):
            signer().seal("x" * 256, b"", NOW)

    def test_many_threads_seal_no_two_alike(self) -> None:
        one, made = signer(), set[bytes]()

        def seal() -> None:
            made.update([one.seal("counter", b"blob", NOW) for _ in range(200)])

        threads = [threading.Thread(target=seal) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)

        opener = verifier()
        assert len(made) == 800
        assert {opener.open("counter", sealed, NOW).blob for sealed in made} == {b"blob"}


class TestRefusing:
    def test_what_is_not_sealed(self) -> None:
        assert why_refused(b"\x92\x01\xa5hello") == Distrust.UNSIGNED

    def test_who_is_not_known_and_says_who_is(self) -> None:
        sealed = signer(node="eu-2").seal("counter", b"blob", NOW)

        with pytest.raises(Untrusted, match=r"'eu-2' is not trusted here; trusted: eu-1") as error:
            verifier().open("counter", sealed, NOW)
        assert (error.value.why, error.value.node) == (Distrust.UNKNOWN_NODE, None)

    def test_who_has_another_key_than_the_node_it_names(self) -> None:
        assert why_refused(signer(OTHER).seal("counter", b"blob", NOW)) == Distrust.FORGED

    @given(st.data())
    @settings(max_examples=200, deadline=None)
    def test_whatever_has_any_bit_changed(self, data: st.DataObject) -> None:
        sealed = bytearray(signer().seal("counter", b"a blob of some length", NOW))
        sealed[data.draw(st.integers(0, len(sealed) - 1))] ^= 1 << data.draw(st.integers(0, 7))

        with pytest.raises((Untrusted, Undecodable)):
            verifier().open("counter", bytes(sealed), NOW)

    @given(st.integers(0, 200))
    @settings(max_examples=100, deadline=None)
    def test_whatever_is_cut_short_or_goes_on(self, size: int) -> None:
        sealed = signer().seal("counter", b"a blob of some length", NOW)
        changed = sealed[:size] if size < len(sealed) else sealed + b"x"

        with pytest.raises((Untrusted, Undecodable)):
            verifier().open("counter", changed, NOW)

    def test_what_was_moved_to_another_inbox_and_says_whose_it_is(self) -> None:
        sealed = signer().seal("counter", b"blob", NOW)

        with pytest.raises(Untrusted, match="'counter' at level 0, and it was found at 'bank'"):
            verifier().open("bank", sealed, NOW)

    def test_what_was_moved_to_another_level(self) -> None:
        sealed = signer().seal("counter", b"blob", NOW, level=3)

        assert why_refused(sealed, level=0) == Distrust.MISPLACED

    def test_what_was_moved_to_another_deployment(self) -> None:
        sealed = signer(namespace="staging").seal("counter", b"blob", NOW)

        assert why_refused(sealed) == Distrust.FORGED

    def test_no_two_ways_to_cut_a_seal_into_names_have_one_signature(self) -> None:
        """The names cannot lend each other letters: their lengths are signed too."""
        sealed = signer().seal("counter", b"blob", NOW)
        lengths = sealed.index(b"eu-1counter") - 2
        shifted = bytearray(sealed)
        shifted[lengths : lengths + 2] = bytes([3, 8])

        by = Verifier({"eu-": [KEY.public_key()]}, limit=LIMIT)
        assert why_refused(bytes(shifted), by=by, recipient="1counter") == Distrust.FORGED

    def test_what_is_older_than_the_window(self) -> None:
        sealed = signer().seal("counter", b"blob", NOW)
        by = verifier(window=600)

        assert why_refused(sealed, by=by, now=NOW + 601) == Distrust.TOO_OLD
        assert by.open("counter", sealed, NOW + 599).blob == b"blob"

    def test_what_is_from_a_time_to_come(self) -> None:
        assert why_refused(signer().seal("counter", b"blob", NOW + 61)) == Distrust.AHEAD

    def test_a_delayed_message_before_it_is_due_and_not_for_its_age_after(self) -> None:
        sealed = signer().seal("counter", b"blob", NOW, delay=90_000)
        by = verifier(window=600)

        assert why_refused(sealed, by=by) == Distrust.AHEAD
        assert by.open("counter", sealed, NOW + 90_001).blob == b"blob"

    def test_what_is_too_large_before_looking_at_it(self) -> None:
        with pytest.raises(Undecodable, match="the limit is"):
            verifier().open("counter", b"\xc1" * (LIMIT + SEAL_LIMIT + 1), NOW)

    def test_a_version_that_it_does_not_read(self) -> None:
        sealed = b"\xc1\x02" + signer().seal("counter", b"blob", NOW)[2:]

        with pytest.raises(Undecodable, match="seal version 2, and this node reads 1"):
            verifier().open("counter", sealed, NOW)

    def test_either_of_two_keys_of_a_node_will_do(self) -> None:
        sealed = signer(OTHER).seal("counter", b"blob", NOW)

        assert verifier(KEY, OTHER).open("counter", sealed, NOW).node == "eu-1"


class TestReplays:
    def test_the_same_once_more_is_refused(self) -> None:
        sealed, by = signer().seal("counter", b"blob", NOW), verifier()
        by.open("counter", sealed, NOW)

        assert why_refused(sealed, by=by, now=NOW + 5) == Distrust.REPLAYED

    def test_but_not_when_it_is_read_again_from_its_place(self) -> None:
        sealed, by = signer().seal("counter", b"blob", NOW), verifier(window=600)
        by.open("counter", sealed, NOW)

        assert by.open("counter", sealed, NOW + 700, again=True).blob == b"blob"

    def test_what_is_read_again_is_held_to_all_the_rest(self) -> None:
        sealed = signer().seal("counter", b"blob", NOW)

        assert why_refused(sealed, recipient="bank", again=True) == Distrust.MISPLACED
        assert why_refused(sealed[:-1] + b"x", again=True) == Distrust.FORGED

    def test_what_came_while_another_owned_the_inbox_begins_anew_for_that_inbox_alone(
        self,
    ) -> None:
        one, by = signer(), verifier()
        ours, others = one.seal("counter", b"a", NOW), one.seal("bank", b"b", NOW)
        by.open("counter", ours, NOW)
        by.open("bank", others, NOW)

        by.forget("counter")

        assert by.open("counter", ours, NOW).blob == b"a"
        assert why_refused(ours, by=by) == Distrust.REPLAYED
        assert why_refused(others, by=by, recipient="bank") == Distrust.REPLAYED

    def test_of_too_many_inboxes_that_began_anew_the_first_is_forgotten(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sealing, "_STAYS", 1)
        one, by = signer(), verifier()
        ours, others = one.seal("counter", b"a", NOW), one.seal("bank", b"b", NOW)
        by.open("counter", ours, NOW)
        by.open("bank", others, NOW)

        by.forget("counter")
        by.forget("bank")

        assert why_refused(ours, by=by) == Distrust.REPLAYED
        assert by.open("bank", others, NOW).blob == b"b"

    def test_what_was_refused_is_not_remembered(self) -> None:
        sealed, by = signer().seal("counter", b"blob", NOW), verifier()
        why_refused(sealed[:-1] + b"x", by=by)
        why_refused(sealed, by=by, recipient="bank")

        assert by.open("counter", sealed, NOW).blob == b"blob"

    def test_two_equal_messages_are_two(self) -> None:
        one, by = signer(), verifier()

        sent = [one.seal("counter", b"blob", NOW) for _ in range(3)]

        assert [by.open("counter", sealed, NOW).blob for sealed in sent] == [b"blob"] * 3

    def test_a_flood_to_one_agent_makes_nothing_old_for_another(self) -> None:
        one, by = signer(), verifier(replays=Replays(depth=4))
        waited = [one.seal("slow", b"blob", NOW), one.seal("counter", b"blob", NOW, level=3)]
        for _ in range(50):
            by.open("counter", one.seal("counter", b"blob", NOW + 1), NOW + 1)

        assert by.open("slow", waited[0], NOW + 2)
        assert by.open("counter", waited[1], NOW + 2, level=3)

    def test_what_was_forgotten_is_still_no_news(self) -> None:
        one, by = signer(), verifier(replays=Replays(depth=4))
        sent = [one.seal("counter", b"blob", NOW) for _ in range(50)]
        for sealed in sent:
            by.open("counter", sealed, NOW)

        assert {why_refused(sealed, by=by) for sealed in sent} == {Distrust.REPLAYED}

    def test_a_delayed_message_that_many_overtook_is_no_replay(self) -> None:
        one, by = signer(), verifier(replays=Replays(depth=4))
        delayed = one.seal("counter", b"later", NOW, delay=5)
        for _ in range(50):
            by.open("counter", one.seal("counter", b"blob", NOW + 10), NOW + 10)

        assert by.open("counter", delayed, NOW + 10).blob == b"later"

    @pytest.mark.parametrize("back", [0.5, 3, 4_000, 90_000])
    def test_a_signer_whose_clock_is_set_back_is_believed_still(self, back: float) -> None:
        one, by = signer(), verifier(replays=Replays(depth=4))
        for step in range(20):
            by.open("counter", one.seal("counter", b"blob", NOW + step), NOW + step)
        now = NOW + 20 - back

        sent = [one.seal("counter", b"blob", now) for _ in range(20)]

        assert [by.open("counter", sealed, now).blob for sealed in sent] == [b"blob"] * 20

    def test_a_node_that_was_started_anew_begins_anew(self) -> None:
        by = verifier(replays=Replays(depth=4))

        for _ in range(3):
            one = signer()
            for _ in range(20):
                assert by.open("counter", one.seal("counter", b"blob", NOW), NOW)


class TestMemory:
    @given(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), max_size=80),
        st.integers(1, 6),
        st.integers(1, 12),
    )
    @settings(max_examples=300, deadline=None)
    def test_no_key_is_new_twice(self, tried: list[tuple[int, int]], depth: int, most: int) -> None:
        replays = Replays(depth=depth, most=most)

        taken = [one for one in tried if replays.is_new(*one)]

        assert len(taken) == len(set(taken))

    @given(st.lists(st.integers(0, 3), max_size=80), st.integers(1, 6), st.integers(1, 12))
    @settings(max_examples=300, deadline=None)
    def test_what_comes_in_order_is_always_new(
        self, queues: list[int], depth: int, most: int
    ) -> None:
        replays = Replays(depth=depth, most=most)

        assert all(replays.is_new(queue, key) for key, queue in enumerate(queues))

    def test_it_is_bounded_in_keys_and_in_queues(self) -> None:
        replays = Replays(depth=10, most=50, quiet=20)

        for key in range(2_000):
            replays.is_new(key % 200, key)

        assert sum(len(one.keys) for one in replays._queues.values()) == replays._count <= 50
        assert len(replays._floors) <= 20

    def test_past_its_room_the_quietest_queue_keeps_its_highest_alone(self) -> None:
        replays = Replays(most=3)
        for queue, key in (("busy", 5), ("quiet", 5), ("busy", 7), ("new", 5)):
            replays.is_new(queue, key)

        assert replays.is_new("busy", 6)
        assert not replays.is_new("quiet", 4)

    def test_of_too_many_queues_the_quietest_is_forgotten(self) -> None:
        replays = Replays(most=1, quiet=1)

        for queue in ("first", "second", "third"):
            replays.is_new(queue, 1)

        assert [replays.is_new(one, 1) for one in ("third", "second", "first")] == [
            False,
            False,
            True,
        ]


class TestKeys:
    def test_a_pair_is_made_for_its_owner_only_and_trusted_by_its_line(
        self, tmp_path: Path
    ) -> None:
        made = make_keys("eu-1", tmp_path / "keys")

        assert stat.S_IMODE(made.private.stat().st_mode) == 0o600
        assert made.public.read_text() == f"{made.line}\n"
        by = Verifier(trusted_keys(made.public), limit=LIMIT)
        sealed = Signer(private_key(made.private), "eu-1").seal("counter", b"blob", NOW)
        assert by.open("counter", sealed, NOW) == Opened("eu-1", b"blob")

    @pytest.mark.parametrize("node", ["..", "a/b", "eu:1", "Ω", "x y", "{p1}", "a~b"])
    def test_a_hostile_name_stays_in_its_folder_and_comes_back(
        self, tmp_path: Path, node: str
    ) -> None:
        made = make_keys(node, tmp_path / "keys")

        assert {one.parent for one in tmp_path.rglob("*.p*")} == {tmp_path / "keys"}
        assert list(trusted_keys(tmp_path / "keys")) == [node]
        assert made.line.startswith(f"{node}: ")

    def test_what_is_there_is_never_written_over(self, tmp_path: Path) -> None:
        first = make_keys("eu-1", tmp_path)
        before = first.private.read_bytes()

        with pytest.raises(InvalidSettings, match=r"eu-1\.pem: File exists"):
            make_keys("eu-1", tmp_path)

        assert first.private.read_bytes() == before

    def test_half_a_pair_is_not_left_behind(self, tmp_path: Path) -> None:
        (tmp_path / "eu-1.pub").write_text("")

        with pytest.raises(InvalidSettings, match=r"eu-1\.pub: File exists"):
            make_keys("eu-1", tmp_path)

        assert not (tmp_path / "eu-1.pem").exists()

    @pytest.mark.parametrize("node", ["", " x", "a\nb", "#eu"])
    def test_a_name_that_no_list_could_hold_is_refused(self, tmp_path: Path, node: str) -> None:
        with pytest.raises(InvalidName):
            make_keys(node, tmp_path)

    def test_a_folder_is_the_list_of_all_in_it_and_a_node_may_have_two(
        self, tmp_path: Path
    ) -> None:
        make_keys("eu-1", tmp_path)
        make_keys("eu-2", tmp_path)
        (tmp_path / "new.pub").write_text(f"# next\n\n{public_line('eu-1', OTHER)}\n")

        found = trusted_keys(tmp_path)

        assert {node: len(keys) for node, keys in found.items()} == {"eu-1": 2, "eu-2": 1}

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ("eu-1", "line 2: no line of `name: key`"),
            ("eu-1: AAAA", "line 2: no Ed25519 public key"),
            ("eu-1: not base64", "line 2: no Ed25519 public key"),
            (f" : {'A' * 43}=", "line 2: '' is no name for a node"),
        ],
    )
    def test_a_wrong_line_is_named(self, tmp_path: Path, line: str, says: str) -> None:
        file = tmp_path / "trusted"
        file.write_text(f"{public_line('eu-2', KEY)}\n{line}\n")

        with pytest.raises(InvalidSettings) as error:
            trusted_keys(file)

        assert f"{file}, {says}" in str(error.value)

    @pytest.mark.parametrize(
        ("content", "says"),
        [(b"\xff\xfe", "not text in UTF-8"), (b"", "there is none"), (None, "No such file")],
    )
    def test_a_list_that_cannot_be_read_says_why(
        self, tmp_path: Path, content: bytes | None, says: str
    ) -> None:
        file = tmp_path / "trusted"
        if content is not None:
            file.write_bytes(content)

        with pytest.raises(InvalidSettings, match=says):
            trusted_keys(file)

    def test_a_file_too_large_for_a_list_is_not_read(self, tmp_path: Path) -> None:
        file = tmp_path / "trusted"
        file.write_bytes(b"#" * ((1 << 20) + 1))

        with pytest.raises(InvalidSettings, match="more than"):
            trusted_keys(file)

    def test_a_private_key_of_another_kind_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "key.pem"
        file.write_bytes(
            ec.generate_private_key(ec.SECP256R1()).private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

        with pytest.raises(InvalidSettings, match="no Ed25519 key"):
            private_key(file)

    @pytest.mark.parametrize("content", [b"", b"hello", b"-----BEGIN PRIVATE KEY-----\n\n"])
    def test_what_is_no_key_says_how_to_make_one(self, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / "key.pem"
        file.write_bytes(content)

        with pytest.raises(InvalidSettings, match="actorbus keys"):
            private_key(file)

    def test_the_key_itself_in_a_setting_is_refused_and_not_shown(self) -> None:
        secret = "c2VjcmV0" * 5 + "AAA="

        with pytest.raises(InvalidSettings, match="name the file") as error:
            Settings(signing_key=secret)

        assert secret not in str(error.value)
        assert "/run/key" not in repr(Settings(signing_key="/run/key"))


class TestTrust:
    def test_a_node_without_keys_seals_nothing_and_takes_seals_off_unverified(self) -> None:
        off = Trust(LIMIT)
        sealed = signer(OTHER).seal("counter", b"blob", NOW)

        assert off.seal("counter", b"blob", NOW) == b"blob"
        assert off.open("counter", b"blob", NOW) == Opened(None, b"blob")
        assert off.open("counter", sealed, NOW) == Opened(None, b"blob")

    def test_and_still_takes_nothing_of_any_size_or_shape(self) -> None:
        off = Trust(LIMIT)

        for wrong in (b"x" * (LIMIT + SEAL_LIMIT + 1), b"\xc1\x01", b"\xc1\x02" + b"x" * 200):
            with pytest.raises(Undecodable):
                off.open("counter", wrong, NOW)

    def test_a_node_with_a_key_alone_seals_and_believes_all(self, tmp_path: Path) -> None:
        made = make_keys("eu-1", tmp_path)
        half = Trust.of("eu-1", limit=LIMIT, signing_key=made.private)

        assert is_sealed(half.seal("counter", b"blob", NOW))
        assert half.open("counter", b"blob", NOW) == Opened(None, b"blob")

    def test_a_node_with_both_refuses_what_is_not_sealed(self, tmp_path: Path) -> None:
        made = make_keys("eu-1", tmp_path)
        on = Trust.of("eu-1", limit=LIMIT, signing_key=made.private, trusted=tmp_path)

        assert on.open("counter", on.seal("counter", b"blob", NOW), NOW).node == "eu-1"
        with pytest.raises(Untrusted, match="unsigned"):
            on.open("counter", b"blob", NOW)

    def test_a_node_that_would_refuse_itself_does_not_start(self, tmp_path: Path) -> None:
        made = make_keys("eu-1", tmp_path / "one")
        make_keys("eu-1", tmp_path / "two")

        with pytest.raises(InvalidSettings, match="add the line eu-1: ") as error:
            Trust.of("eu-1", limit=LIMIT, signing_key=made.private, trusted=tmp_path / "two")
        with pytest.raises(InvalidSettings, match="trusted_keys without signing_key"):
            Trust.of("eu-1", limit=LIMIT, trusted=tmp_path / "two")

        assert made.line in str(error.value)


class TestVouching:
    @pytest.mark.parametrize("node", [None, "eu-1"])
    def test_the_header_says_who_vouches_whatever_the_sender_wrote(self, node: str | None) -> None:
        ids = IdSource()
        message: Message[Any] = Message(
            ids.make(1.0), MessageKind.TELL, "a", "b", None, "x", Priority.NORMAL, 1.0, None,
            ids.make(1.0), None, None, 0, 0, {NODE_HEADER: "root", "own": "kept"},
        )  # fmt: skip

        headers = vouched(message, node).headers

        assert headers.get(NODE_HEADER) == node
        assert headers["own"] == "kept"
