from __future__ import annotations

import json
import sys
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorbus.errors import AuditUnavailable
from actorbus.persistence.anchors import make_keys
from actorbus.persistence.chain import (
    HASH,
    SEQ,
    Finding,
    Flaw,
    Head,
    Row,
    RowKind,
    canonical_digest,
    digest,
    fields,
    walk,
)

if TYPE_CHECKING:
    from pathlib import Path

values = st.lists(st.none() | st.text() | st.binary() | st.integers(), max_size=4)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
    max_leaves=8,
)


@given(values, values)
def test_no_two_lists_of_values_have_the_same_bytes(one: list[Any], other: list[Any]) -> None:
    assert (fields(*one) == fields(*other)) == (one == other)


@pytest.mark.parametrize("size", [0, 1, 2_047, 2_048, 2_049, 100_000])
def test_a_digest_is_that_of_the_whole_text_whatever_its_length(size: int) -> None:
    text = "é" * (size // 2) + "x" * (size % 2)

    assert digest(text) == sha256(text.encode()).digest()


def backwards(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: backwards(value[key]) for key in reversed(value)}
    return [backwards(item) for item in value] if isinstance(value, list) else value


@given(documents)
def test_a_canonical_digest_sees_past_how_json_was_written(document: Any) -> None:
    plain = json.dumps(document)
    other = json.dumps(backwards(document), indent=1, ensure_ascii=False)

    assert canonical_digest(plain) == canonical_digest(other)


@given(documents, documents)
def test_different_documents_have_different_canonical_digests(one: Any, other: Any) -> None:
    same = canonical_digest(json.dumps(one)) == canonical_digest(json.dumps(other))

    assert same == (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))


@pytest.mark.parametrize(("one", "other"), [("1e2", "100"), ("1.50", "1.5"), ("-0.0", "0")])
def test_a_number_has_one_canonical_digest_however_it_is_written(one: str, other: str) -> None:
    assert canonical_digest(one) == canonical_digest(other)


def test_a_number_and_its_text_differ() -> None:
    assert canonical_digest("1") != canonical_digest('"1"')


def rehash(previous: bytes, row: Row) -> bytes:
    return sha256(previous + fields(row[SEQ])).digest()


KINDS = [RowKind("t", lambda row: str(row[SEQ]), rehash)]


def chained(count: int) -> tuple[list[list[Any]], Head, Head]:
    """Rows over the texts of their own places, with the genesis and the head."""
    genesis = head = Head(0, bytes(32))
    rows: list[list[Any]] = []
    for seq in range(1, count + 1):
        head = Head(seq, rehash(head.hash, (1, seq)))
        rows.append([1, seq, 0, head.hash])
    return rows, genesis, head


def flaws(found: list[Finding]) -> list[tuple[Flaw, int | None]]:
    return [(one.flaw, one.seq) for one in found]


@given(st.integers(0, 20), st.data())
def test_a_walk_misses_exactly_the_rows_that_are_gone(count: int, data: Any) -> None:
    rows, genesis, head = chained(count)
    gone = data.draw(st.sets(st.integers(1, count))) if count else set()
    left = [row for row in rows if row[SEQ] not in gone]

    found = list(walk(1, [genesis], left, head, {}, KINDS))

    starts = {seq for seq in gone if seq - 1 not in gone}
    assert {one.seq for one in found} == starts
    assert {one.flaw for one in found} <= {Flaw.MISSING, Flaw.CUT}


def test_a_walk_goes_on_after_a_row_whose_hash_was_changed() -> None:
    rows, genesis, head = chained(5)
    rows[2][HASH] = bytes(32)

    found = list(walk(1, [genesis], rows, head, {}, KINDS))

    assert flaws(found) == [(Flaw.CHANGED, 3)]


def test_an_anchor_that_tells_otherwise_makes_a_sound_chain_a_rewritten_one() -> None:
    rows, genesis, head = chained(5)

    found = list(walk(1, [genesis], rows, head, {4: b"\1" * 32}, KINDS))

    assert flaws(found) == [(Flaw.REWRITTEN, 4)]


def test_signing_without_the_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)

    with pytest.raises(AuditUnavailable, match=r"actorbus\[signed\]"):
        make_keys(tmp_path / "key", tmp_path / "key.pub")
