"""What a history does by its settings, where a node has only its URL."""

from __future__ import annotations

import base64
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from actorbus import Node, Settings
from actorbus.cli.audit import app
from actorbus.errors import AuditUnavailable, InvalidSettings
from actorbus.persistence.anchors import AnchorFile, Signer, make_keys
from actorbus.persistence.audit import Audit

if TYPE_CHECKING:
    from collections.abc import Callable

RAW = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'history.db'}"


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    private, public = tmp_path / "key.pem", tmp_path / "key.pem.pub"
    make_keys(private, public)
    return private, public


def read(text: str) -> None:
    """Reads it, and says nothing."""


def tell(url: str, text: str) -> None:
    """One message from a node that knows no more than the URL."""
    with Node(audit=url) as node:
        node.spawn(read, name="reader").tell(text)
        node.drain(20)


def payloads(url: str) -> list[Any]:
    return [one.payload for one in Audit(url).messages(recipient="reader")]


@pytest.mark.parametrize(
    ("mask", "kept"),
    [
        ("", "ada@example.org, token=abc"),
        ("all", "[email], token=[secret]"),
        ("email", "[email], token=abc"),
        (" card , email,", "[email], token=abc"),
    ],
)
def test_a_variable_masks(url: str, monkeypatch: pytest.MonkeyPatch, mask: str, kept: str) -> None:
    monkeypatch.setenv("ACTORBUS_AUDIT_MASK", mask)

    tell(url, "ada@example.org, token=abc")

    assert payloads(url) == [kept]


def test_a_mask_that_nobody_knows_is_refused_before_a_node_starts(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTORBUS_AUDIT_MASK", "emial")

    with pytest.raises(InvalidSettings, match="'email'"):
        Node(audit=url)


def test_an_audit_that_was_made_by_hand_keeps_its_own_ways(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ACTORBUS_AUDIT_MASK", "all")
    monkeypatch.setenv("ACTORBUS_AUDIT_ANCHORS", str(tmp_path / "elsewhere"))

    with Node(audit=Audit(url)) as node:
        node.spawn(read, name="reader").tell("ada@example.org")
        node.drain(20)

    assert payloads(url) == ["ada@example.org"]
    assert not (tmp_path / "elsewhere").exists()


def test_variables_say_where_signed_anchors_go_and_the_command_line_verifies_them(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keys: tuple[Path, Path]
) -> None:
    private, public = keys
    place = tmp_path / "safe.anchors"
    monkeypatch.setenv("ACTORBUS_AUDIT", url)
    monkeypatch.setenv("ACTORBUS_AUDIT_ANCHORS", str(place))
    monkeypatch.setenv("ACTORBUS_AUDIT_SIGNING_KEY", str(private))

    tell(url, "hello")
    held = CliRunner().invoke(app, ["hold", "tenant", "--why", "test", "--by", "ada"])
    verified = CliRunner().invoke(app, ["verify", "--public-key", str(public)])

    assert held.exit_code == 0, held.output
    assert verified.exit_code == 0, verified.output
    assert "2 anchors: sound" in verified.output
    assert {one.key for one in AnchorFile(place).read()[0]} == {Signer(private).key}
    assert not (tmp_path / "history.db.anchors").exists()


def test_a_variable_turns_anchors_off(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ACTORBUS_AUDIT_ANCHORS", "off")

    tell(url, "hello")

    assert list(tmp_path.glob("*anchors*")) == []


def test_a_key_file_that_is_not_there_stops_the_start(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTORBUS_AUDIT_SIGNING_KEY", "missing.pem")

    with pytest.raises(AuditUnavailable, match=r"missing\.pem"):
        Node(audit=url).start()


def as_pem(folder: Path) -> str:
    make_keys(folder / "k", folder / "k.pub")
    return (folder / "k").read_text()


def as_pem_body(folder: Path) -> str:
    return as_pem(folder).splitlines()[1]


def as_hex(folder: Path) -> str:
    return RAW.private_bytes_raw().hex()


def as_base64(folder: Path) -> str:
    return base64.b64encode(RAW.private_bytes_raw()).decode()


@pytest.mark.parametrize("written", [as_pem, as_pem_body, as_hex, as_base64])
def test_a_key_itself_is_refused_and_shown_nowhere(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, written: Callable[[Path], str]
) -> None:
    key = written(tmp_path)
    monkeypatch.setenv("ACTORBUS_AUDIT", url)
    tell(url, "hello")
    monkeypatch.setenv("ACTORBUS_AUDIT_SIGNING_KEY", key)

    with pytest.raises(InvalidSettings, match="name the file") as by_setting:
        Settings()
    with pytest.raises(AuditUnavailable, match="name the file") as by_hand:
        Signer(Path(key))
    by_command = CliRunner().invoke(app, ["hold", "tenant", "--why", "test", "--by", "ada"])

    assert by_command.exit_code != 0
    shown = [
        *map(str, traceback.format_exception(by_setting.value)),
        *map(str, traceback.format_exception(by_hand.value)),
        by_command.output,
    ]
    secret = key.splitlines()[1] if "\n" in key else key
    assert secret[:16] not in "".join(shown)


def test_settings_do_not_show_where_a_key_is() -> None:
    settings = Settings(audit_signing_key="/run/secrets/key.pem")

    assert "key.pem" not in repr(settings)
    assert "key.pem" not in str(settings)


@pytest.mark.parametrize("what", ["tenant", "project"])
def test_a_node_writes_into_no_other_history_than_was_meant(url: str, what: str) -> None:
    meant: dict[str, Any] = {what: "acme"}
    with pytest.raises(AuditUnavailable, match=rf"give the node Settings\({what}='acme'\)"):
        Node(audit=Audit(url, **meant))

    with Node(audit=Audit(url, **meant), settings=Settings(**meant)) as node:
        node.spawn(read, name="reader").tell("for acme")
        node.drain(20)

    assert len(Audit(url, **meant).messages()) == 1


def test_one_kind_of_mask_may_stand_alone(url: str) -> None:
    with Node(audit=Audit(url, mask="email")) as node:
        node.spawn(read, name="reader").tell("ada@example.org, token=abc")
        node.drain(20)

    assert payloads(url) == ["[email], token=abc"]
