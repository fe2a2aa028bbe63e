from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from actorbus import Node, Settings
from actorbus.cli import app
from actorbus.codec.signing import Trust
from tests.cli.conftest import Counter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cli.conftest import Commands


def test_a_pair_is_made_and_the_line_to_trust_is_all_there_is_on_stdout(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["keys", "eu-1", "--folder", str(tmp_path)])

    assert result.exit_code == 0
    assert result.stdout == (tmp_path / "eu-1.pub").read_text()
    assert stat.S_IMODE((tmp_path / "eu-1.pem").stat().st_mode) == 0o600
    assert "eu-1.pem signs" in result.stderr


def test_a_node_that_is_given_the_two_starts(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["keys", "eu-1", "--folder", str(tmp_path), "--json"])

    told = json.loads(result.stdout)
    trusted = tmp_path / "trusted"
    trusted.write_text(told["line"])
    assert Trust.of("eu-1", limit=100, signing_key=tmp_path / "eu-1.pem", trusted=trusted).verifier


def test_a_second_time_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    made = CliRunner().invoke(app, ["keys", "eu-1", "--folder", str(tmp_path)]).stdout

    again = CliRunner().invoke(app, ["keys", "eu-1", "--folder", str(tmp_path)])

    assert (again.exit_code, again.stdout) == (1, "")
    assert "File exists" in again.stderr
    assert (tmp_path / "eu-1.pub").read_text() == made


@pytest.mark.parametrize("name", ["", " x", "a\x1b[31m"])
def test_what_is_no_name_is_wrong_usage(tmp_path: Path, name: str) -> None:
    result = CliRunner().invoke(app, ["keys", name, "--folder", str(tmp_path)])

    assert result.exit_code == 2
    assert "\x1b[31m" not in result.stderr
    assert not list(tmp_path.iterdir())


class TestWhereNodesSign:
    @pytest.fixture
    def signed(self, command: Commands, tmp_path: Path) -> Iterator[dict[str, str]]:
        """A node that signs; the settings of a shell beside it, with the key of `ops`."""
        for name in ("eu", "ops"):
            CliRunner().invoke(app, ["keys", name, "--folder", str(tmp_path)])
        settings = Settings(
            namespace=command.namespace,
            log_level="off",
            signing_key=str(tmp_path / "eu.pem"),
            trusted_keys=str(tmp_path),
        )
        with Node(command.bus, name="eu", settings=settings) as node:
            node.spawn(Counter, name="counter")
            yield {
                "ACTORBUS_SIGNING_KEY": str(tmp_path / "ops.pem"),
                "ACTORBUS_TRUSTED_KEYS": str(tmp_path),
            }

    def test_a_command_speaks_as_the_node_that_it_names(
        self, command: Commands, signed: dict[str, str]
    ) -> None:
        said = command("ask", "counter", '{"body": "to be"}', "--as", "ops", **signed)

        assert json.loads(said.stdout) == {"words": 2}

    @pytest.mark.parametrize("verb", ["ask", "send"])
    def test_one_that_names_none_is_told_how(
        self, command: Commands, signed: dict[str, str], verb: str
    ) -> None:
        result = command(verb, "counter", '{"body": "to be"}', **signed)

        assert result.exit_code == 2
        assert "--as NODE" in result.stderr

    def test_shared_state_takes_no_signature(
        self, command: Commands, signed: dict[str, str]
    ) -> None:
        written = command("context", "set", "plan", "todo", "1", **signed)
        read = command("context", "get", "plan", "todo", **signed)

        assert (written.exit_code, read.stdout) == (0, "1\n")
