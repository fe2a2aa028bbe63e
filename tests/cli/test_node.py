"""``actorbus node``, as processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.cli.conftest import Commands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DEAD_AFTER = 4.0  # longer than a command takes to start on a busy machine
BEAT = 0.3
QUICK = {
    "ACTORBUS_BEAT": str(BEAT),
    "ACTORBUS_SUSPECT_AFTER": "0.8",
    "ACTORBUS_DEAD_AFTER": str(DEAD_AFTER),
}
AGENTS = """
import gc, time
from actorbus import agent

@agent(capabilities=("shout",))
def upper(text: str) -> str:
    return text.upper()

@agent
def sleeper(seconds: float) -> None:
    print("asleep", flush=True)
    time.sleep(seconds)

@agent
def frozen(what: str) -> bool:
    return gc.get_freeze_count() > len(gc.get_objects()) and gc.isenabled()
"""

TOGETHER = """
import os, time
from pathlib import Path
from actorbus import agent

here = Path(__file__).parent  # however long each took to get here, both are here now
(here / f"{os.getpid()}.here").touch()
give_up = time.monotonic() + 20
while len(list(here.glob("*.here"))) < 2 and time.monotonic() < give_up:
    time.sleep(0.01)
"""


class Running:
    """A node that was started by its command."""

    def __init__(self, process: subprocess.Popen[str], page: Path) -> None:
        self.process = process
        self._page = page

    @property
    def said(self) -> str:
        return self._page.read_text()

    def until(self, word: str, seconds: float = 20.0) -> str:
        """What it has said, once `word` is in it."""
        give_up = time.monotonic() + seconds
        while word not in self.said:
            if time.monotonic() > give_up or self.process.poll() is not None:
                assert word in self.said
            time.sleep(0.02)
        return self.said


@pytest.fixture
def start(command: Commands, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    (tmp_path / "some.py").write_text(AGENTS)
    started: list[subprocess.Popen[str]] = []

    def start(*options: str, dead_after: float = DEAD_AFTER) -> Running:
        page = tmp_path / f"{len(started)}.txt"
        program = [sys.executable, "-m", "actorbus", "node", "--bus", command.bus, *options]
        env = {
            **os.environ,
            **QUICK,
            "ACTORBUS_DEAD_AFTER": str(dead_after),
            "ACTORBUS_NAMESPACE": command.namespace,
            "COLUMNS": "200",
        }
        with page.open("w") as file:
            process = subprocess.Popen(program, stdout=file, stderr=file, text=True, env=env)
        started.append(process)
        return Running(process, page)

    yield start
    for process in started:
        process.kill()
        process.wait(10)


def test_a_node_runs_what_it_loaded_until_sigterm_and_leaves_in_order(
    command: Commands, start: Callable[..., Running], tmp_path: Path
) -> None:
    node = start("--name", "eu", "--load", str(tmp_path / "some.py"))
    said = node.until("upper")

    reply = command("ask", "upper", '"hello"', **QUICK)
    node.process.send_signal(signal.SIGTERM)

    assert "eu is up on redis" in said
    assert (reply.exit_code, reply.stdout) == (0, '"HELLO"\n')
    assert node.process.wait(10) == 0
    assert "eu has stopped." in node.said
    assert command.json("nodes") == []


def test_a_node_is_of_the_namespace_that_it_is_told(
    command: Commands, start: Callable[..., Running]
) -> None:
    other = Commands(command.bus, uuid4().hex)

    start("--name", "eu", "--namespace", other.namespace).until("is up")

    assert [one["name"] for one in other.json("nodes")] == ["eu"]
    assert command.json("nodes") == []


def test_what_is_there_once_it_is_up_is_not_searched_for_garbage_and_what_comes_then_is(
    command: Commands, start: Callable[..., Running], tmp_path: Path
) -> None:
    start("--name", "eu", "--load", str(tmp_path / "some.py")).until("frozen")

    reply = command("ask", "frozen", '"is it?"', **QUICK)

    assert (reply.exit_code, reply.stdout) == (0, "true\n")


def test_a_second_signal_ends_it_at_once(
    command: Commands, start: Callable[..., Running], tmp_path: Path
) -> None:
    node = start("--name", "eu", "--load", str(tmp_path / "some.py"))
    node.until("sleeper")
    assert command("send", "sleeper", "60.0", **QUICK).exit_code == 0
    node.until("asleep")

    node.process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        node.process.wait(0.5)
    node.process.send_signal(signal.SIGTERM)

    assert node.process.wait(5) == 128 + signal.SIGTERM


def test_a_node_whose_name_was_killed_a_moment_ago_waits_until_that_is_certain(
    command: Commands, start: Callable[..., Running]
) -> None:
    dead_after = 2 * DEAD_AFTER  # the second must be there before the first counts as dead
    first = start("--name", "eu", dead_after=dead_after)
    first.until("is up")
    first.process.kill()
    first.process.wait(10)

    second = start("--name", "eu", dead_after=dead_after)
    second.until("Waiting at most")
    began = time.monotonic()
    said = second.until("eu is up")

    assert time.monotonic() - began <= dead_after + BEAT + 1.0
    assert "a node 'eu' was here a moment ago" in said.lower()
    (one,) = command.json("nodes")
    assert one["pid"] == second.process.pid


def test_a_node_whose_name_another_has_that_lives_is_refused(
    start: Callable[..., Running],
) -> None:
    first = start("--name", "eu")
    first.until("is up")

    second = start("--name", "eu")

    assert second.process.wait(20) == 2
    assert "belongs to a running node" in second.said
    assert first.process.poll() is None


def test_nodes_that_start_together_share_the_agents_that_both_load(
    command: Commands, start: Callable[..., Running], tmp_path: Path
) -> None:
    agents = (f"@agent\ndef job_{at}(text: str) -> str:\n    return text\n" for at in range(4))
    (tmp_path / "jobs.py").write_text("\n".join([TOGETHER, *agents]))

    nodes = [start("--name", name, "--load", str(tmp_path / "jobs.py")) for name in ("a", "b")]
    for node in nodes:
        node.until("job-3")

    owners = [one["node"] for one in command.json("agents")]
    assert sorted(owners) == ["a", "a", "b", "b"]


def test_what_cannot_be_loaded_is_named_and_the_rest_runs(
    command: Commands, start: Callable[..., Running], tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")

    node = start("--load", str(tmp_path))
    said = node.until("not loaded")

    assert "broken.py:1" in said
    assert command("ask", "--any", "shout", '"a"', **QUICK).stdout == '"A"\n'


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--load", "/no/such/folder"], 2),
        (["--name", " "], 2),
        (["--pin", "9999"], 2),
        (["--bus", "http://host"], 2),
        (["--bus", "redis://host:port/0"], 2),
        (["--bus", "redis+sentinel://host"], 2),
        (["--audit", "nonsense"], 2),
        (["--bus", "redis://:secret@127.0.0.1:1/0"], 1),
    ],
)
def test_what_cannot_be_ends_at_once(command: Commands, options: list[str], code: int) -> None:
    result = command("node", *options)

    assert result.exit_code == code, result.output
    assert "Error: " in result.stderr
    assert "secret" not in result.output
