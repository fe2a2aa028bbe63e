from __future__ import annotations

import csv
import json
import stat
from io import StringIO
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorbus.errors import InvalidQuery
from actorbus.message import MessageKind, Status, format_id
from actorbus.persistence.export import FORMATS, cell

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = '=cmd|"/c calc"!A1\x1b[2J\u202e'


@pytest.fixture
def kept(history: Any) -> Any:
    """A plain message, an event on a topic, and one that is hostile all over."""
    recorder = history.record()
    history.sent = [
        history.message({"n": 1}),
        history.message("tick", kind=MessageKind.EVENT, recipient=None, topic="prices.eur"),
        history.message(HOSTILE, sender=HOSTILE, headers={HOSTILE: HOSTILE}, causation_id=7),
    ]
    for message in history.sent:
        recorder.sent(message)
    history.end(recorder, history.sent[2], Status.FAILED, error=HOSTILE)
    return history


def _exported(history: Any, **options: Any) -> str:
    stream = StringIO()
    history.audit.export(stream, **options)
    return stream.getvalue()


def test_json_lines_hold_every_message_oldest_first(kept: Any) -> None:
    lines = [json.loads(line) for line in _exported(kept).splitlines()]

    assert [line["id"] for line in lines] == [format_id(one.id) for one in kept.sent]
    assert lines[0]["payload"] == {"n": 1}
    assert lines[2]["error"] == HOSTILE


def test_csv_has_a_row_a_message_and_no_formula(kept: Any) -> None:
    rows = list(csv.DictReader(StringIO(_exported(kept, format="csv"))))

    assert [row["id"] for row in rows] == [format_id(one.id) for one in kept.sent]
    assert json.loads(rows[0]["payload"]) == {"n": 1}
    assert rows[2]["sender"].startswith("'=cmd")
    assert "\\x1b[2J\\u202e" in rows[2]["error"]


@given(st.text())
def test_a_cell_neither_computes_nor_steers(text: str) -> None:
    shown = str(cell(text))

    assert not shown.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert all(char.isprintable() or char == "\n" for char in shown)


def test_cloud_events_have_what_the_specification_requires(kept: Any) -> None:
    tell, event, caused = map(json.loads, _exported(kept, format="cloudevents").splitlines())

    assert tell["specversion"] == "1.0"
    assert tell["id"] == format_id(kept.sent[0].id)
    assert (tell["source"], tell["type"]) == ("/actorbus/nodes/node-1", "actorbus.message.tell")
    assert tell["time"].endswith("+00:00")
    assert (tell["subject"], event["subject"]) == ("bob", "prices.eur")
    assert caused["causationid"] == format_id(7)
    assert tell["data"]["payload"] == {"n": 1}
    assert all(name.isalnum() and name.islower() for name in caused)


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_exported_speaks_to_a_terminal(kept: Any, format: str) -> None:
    assert not set(_exported(kept, format=format)) & {"\x1b", "\u202e"}


def test_an_export_takes_filters_and_counts(kept: Any) -> None:
    stream = StringIO()

    assert kept.audit.export(stream, topic="prices.eur") == 1
    assert json.loads(stream.getvalue())["topic"] == "prices.eur"


def test_an_export_ends_though_messages_go_on_arriving(kept: Any) -> None:
    got = []

    for view in kept.audit.every():
        got.append(view.id)
        kept.clock.advance(1)
        kept._recorders[0].sent(kept.message("more"))

    assert got == [message.id for message in kept.sent]


def test_a_file_is_written_whole(kept: Any, tmp_path: Path) -> None:
    path = tmp_path / "export.jsonl"

    count = kept.audit.export(path)

    assert count == len(path.read_text().splitlines()) == 3
    assert [one.name for one in tmp_path.glob("*export*")] == ["export.jsonl"]


def test_an_existing_file_stays_unless_it_may_be_overwritten(kept: Any, tmp_path: Path) -> None:
    path = tmp_path / "export.jsonl"
    path.write_text("precious")

    with pytest.raises(FileExistsError):
        kept.audit.export(path)
    assert path.read_text() == "precious"
    kept.audit.export(path, overwrite=True)

    assert len(path.read_text().splitlines()) == 3


def test_a_file_that_is_overwritten_keeps_its_permissions(kept: Any, tmp_path: Path) -> None:
    path = tmp_path / "export.jsonl"
    path.write_text("for my eyes only")
    path.chmod(0o600)

    kept.audit.export(path, overwrite=True)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_export_that_fails_leaves_nothing_behind(
    kept: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "broken", _broken)

    with pytest.raises(OSError, match="no space"):
        kept.audit.export(tmp_path / "export", format="broken")

    assert list(tmp_path.glob("*export*")) == []


def test_a_path_that_cannot_be_written_is_named_as_it_was_given(kept: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as refused:
        kept.audit.export(tmp_path / "nowhere" / "export")

    assert refused.value.filename == str(tmp_path / "nowhere" / "export")


def _broken(views: Any) -> Any:
    yield str(next(views))
    raise OSError("no space left")


def test_a_place_that_cannot_be_written_is_an_error(kept: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        kept.audit.export(tmp_path / "nowhere" / "export")
    with pytest.raises(IsADirectoryError):
        kept.audit.export(tmp_path)


def test_an_unknown_format_names_the_known_ones(kept: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidQuery, match="jsonl, csv, cloudevents"):
        kept.audit.export(tmp_path / "export", format="excel")

    assert list(tmp_path.glob("*export*")) == []
