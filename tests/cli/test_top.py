"""``actorbus top``."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from actorbus import Node
    from tests.cli.conftest import Commands

ON_A_TERMINAL = """
import fcntl, runpy, signal, termios
signal.signal(signal.SIGINT, signal.default_int_handler)  # where tests run in the background
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # so that Ctrl-C is a signal
runpy.run_module("actorbus", run_name="__main__")
"""


def test_one_picture_has_nodes_agents_what_waits_and_the_server(
    command: Commands, node: Node
) -> None:
    box = node.mailbox("box")
    for number in range(3):
        node.tell("box", number)
    node.flush(5)
    node.tell("counter", 7)
    node.drain(5)

    told = command.json("top")
    page = command("top", "--once")

    assert [(one["name"], one["status"]) for one in told["nodes"]] == [("eu", "alive")]
    assert "counter" in [one["name"] for one in told["agents"]]
    assert told["dead_letters"] == 1
    assert abs(datetime.fromisoformat(told["taken"]) - datetime.now(UTC)) < timedelta(minutes=1)
    assert told["redis"]["memory"] > 0
    assert told["redis"]["servers"] == 1
    assert page.exit_code == 0
    for word in ("eu", "counter", "1 dead letters", "MiB"):
        assert word in page.stdout
    assert len(box.take(3, timeout=5)) == 3


def test_without_a_server_it_ends_with_1(command: Commands) -> None:
    result = command("top", "--once", "--bus", "redis://:secret@127.0.0.1:1/0")

    assert result.exit_code == 1
    assert "secret" not in result.output


@pytest.mark.parametrize(("key", "code"), [(b"q", 0), (b"\x03", 130)])
def test_on_a_terminal_it_goes_on_until_q_or_ctrl_c(
    command: Commands, node: Node, key: bytes, code: int
) -> None:
    ours, theirs = pty.openpty()
    env = {**os.environ, "ACTORBUS_NAMESPACE": command.namespace, "TERM": "xterm", "LINES": "40"}
    program = [sys.executable, "-c", ON_A_TERMINAL, "top", "--bus", command.bus, "--every", "0.2"]
    process = subprocess.Popen(
        program, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True
    )
    os.close(theirs)
    try:
        shown = _read_until(ours, b"counter")
        os.write(ours, key)
        _drain(ours, process)

        assert process.wait(10) == code
        assert b"counter" in shown
    finally:
        process.kill()
        process.wait(10)
        os.close(ours)


def _read_until(terminal: int, word: bytes) -> bytes:
    found, give_up = b"", time.monotonic() + 20
    while word not in found and time.monotonic() < give_up:
        if select.select([terminal], [], [], 0.2)[0]:
            found += os.read(terminal, 65_536)
    return found


def _drain(terminal: int, process: subprocess.Popen[bytes]) -> None:
    """What nobody reads would hold the program up."""
    give_up = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < give_up:
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                os.read(terminal, 65_536)
            except OSError:
                return  # the other end is closed
