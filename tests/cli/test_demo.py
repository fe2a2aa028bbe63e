"""``actorbus demo`` as its user meets it: a process with streams, signals and an exit code."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from actorbus.cli import app
from actorbus.persistence.audit import Audit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROGRAM = [sys.executable, "-m", "actorbus"]
DEADLINE = 60.0

SLOW = "def f(a, b):\n    return [a + b * 2 for a in (1, 2, 3) if b]\n" * 1_000
"""Takes long enough to parse that some hundred of them cannot be done in between."""

BROKEN = {
    "syntax.py": b"x = 1\nprint 'old'\n",
    "encoding.py": b"x = '\xe9'\n",
    "null.py": b"x = '\0'\n",
    "large.py": b"#" * (2 << 20) + b"\n",
}


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", *(n for n in os.environ if n.startswith("ACTORBUS_"))):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Twenty good files, the n-th of n lines, and none that is broken."""
    root = tmp_path / "tree"
    (root / "inner").mkdir(parents=True)
    for number in range(1, 21):
        folder = root / "inner" if number % 2 else root
        (folder / f"file{number}.py").write_text("import os\n" * number)
    return root


@pytest.fixture
def slow_tree(tmp_path: Path) -> Path:
    """Files that take far longer than a test looks on."""
    root = tmp_path / "slow"
    root.mkdir()
    (root / "0.py").write_text(SLOW)
    for number in range(1, 300):
        os.link(root / "0.py", root / f"{number}.py")
    return root


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, timeout=DEADLINE, check=False
    )


def _refused(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["demo", *arguments])
    return result.exit_code, result.stdout, result.stderr


class Terminal:
    """A program whose stderr is a terminal, and its stdout a pipe."""

    def __init__(self, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [*PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=theirs, text=True
        )
        os.close(theirs)
        self.seen = ""

    def until(self, done: Callable[[str], object]) -> None:
        """Read what the terminal shows until `done` says so."""
        give_up = time.monotonic() + DEADLINE
        while not done(self.seen):
            if not select.select([self._ours], [], [], max(0.0, give_up - time.monotonic()))[0]:
                raise TimeoutError(f"not in time; this far: {self.seen[-500:]!r}")
            self.seen += os.read(self._ours, 65_536).decode()

    def until_some_are_done(self) -> None:
        self.until(lambda seen: re.search(r"\b[1-9]\d*/\d+ files", seen))

    def end(self) -> tuple[int, str]:
        """The exit code, and all of stdout."""
        assert self.process.stdout is not None
        with self.process, self.process.stdout:
            output = self.process.stdout.read()
            try:
                self.until(lambda _: False)
            except OSError:  # how Linux says that nobody has the terminal open any more
                os.close(self._ours)
            return self.process.wait(DEADLINE), output


def test_every_file_is_surveyed_by_somebody(tree: Path) -> None:
    result = _run("demo", str(tree), "--agents", "3", "--json")

    found: dict[str, Any] = json.loads(result.stdout)
    assert (result.returncode, result.stderr) == (0, "")
    assert (found["files"]["found"], found["files"]["read"]) == (20, 20)
    assert found["totals"]["lines"] == sum(range(1, 21))
    assert found["largest_files"][0] == {"path": "file20.py", "lines": 20, "bytes": 200}
    assert found["most_imported"] == [{"module": "os", "files": 20}]
    assert [one["name"] for one in found["surveyors"]] == [f"surveyor-{n}" for n in (1, 2, 3)]
    assert sum(one["files"] for one in found["surveyors"]) == 20
    assert found["dead_letters"]["letters"] == []
    assert found["interrupted"] is False


def test_broken_files_are_dead_letters_with_the_reason_and_no_failure(tree: Path) -> None:
    for name, source in BROKEN.items():
        (tree / name).write_bytes(source)
    (tree / "nowhere.py").symlink_to(tree / "missing.py")
    (tree / "around").symlink_to(tree)

    result = _run("demo", str(tree), "--json")

    found = json.loads(result.stdout)
    kinds = {one["about"]: one["kind"] for one in found["dead_letters"]["letters"]}
    assert (result.returncode, result.stderr) == (0, "")
    assert kinds == {
        "encoding.py": "encoding",
        "large.py": "too large",
        "nowhere.py": "unreadable",
        "null.py": "null byte",
        "syntax.py": "syntax error",
    }
    assert found["files"]["read"] == 20
    dead = Audit("sqlite:///actorbus-demo.db").messages(status="dead")
    assert {one.payload["path"] for one in dead} == set(kinds)


def test_piped_tables_are_plain_and_fit(tree: Path) -> None:
    (tree / "syntax.py").write_bytes(BROKEN["syntax.py"])

    result = _run("demo", str(tree))

    assert (result.returncode, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
    assert re.match(rf"Surveyed 21 files in [0-9.]+ s, [0-9,]+ files/s: {tree}\n", result.stdout)
    tables, commands = result.stdout.split("\nNext\n")
    assert max(len(line) for line in tables.splitlines()[1:]) <= 80
    assert len(commands.splitlines()) == 6
    assert "syntax error: line 2: " in result.stdout
    assert "actorbus-demo.db: " in result.stdout


def test_where_no_file_is_broken_it_says_so(tree: Path) -> None:
    assert "None: every file could be parsed." in _run("demo", str(tree)).stdout


def test_the_next_commands_work_as_they_are_printed(tree: Path) -> None:
    shown = _run("demo", str(tree), "--audit", "sqlite:///other file.db").stdout

    commands = [line for line in shown.splitlines() if " audit " in line]
    results = [
        subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
        for command in commands
    ]
    assert [one.returncode for one in results] == [0, 0, 0]
    assert [one.stderr for one in results[1:]] == ["", ""]
    assert "SourceFile" in results[1].stdout
    assert "SayWhatYouDid" in results[2].stdout


def test_each_run_adds_to_the_history(tree: Path) -> None:
    first, second = (json.loads(_run("demo", str(tree), "--json").stdout) for _ in range(2))

    assert second["history"]["messages"] == 2 * first["history"]["messages"]
    assert second["history"]["run"] != first["history"]["run"]
    ours = Audit("sqlite:///actorbus-demo.db").messages(run=second["history"]["run"])
    assert len(ours) == first["history"]["messages"]


@pytest.mark.parametrize(("variable", "coloured"), [("NO_COLOR", False), ("UNUSED", True)])
def test_progress_is_live_on_a_terminal_and_leaves_stdout_alone(
    slow_tree: Path, monkeypatch: pytest.MonkeyPatch, variable: str, coloured: bool
) -> None:
    monkeypatch.setenv(variable, "1")
    terminal = Terminal("demo", str(slow_tree), "--json")

    terminal.until_some_are_done()
    terminal.process.send_signal(signal.SIGTERM)
    _, output = terminal.end()

    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]", terminal.seen)) == coloured
    assert "Surveying" in terminal.seen
    assert "Halting" in terminal.seen
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert terminal.seen.rindex(hidden) < terminal.seen.rindex(shown)
    assert json.loads(output)["interrupted"] is True


def test_progress_leaves_room_for_the_echo_of_ctrl_c(slow_tree: Path) -> None:
    terminal = Terminal("demo", str(slow_tree))

    terminal.until_some_are_done()
    terminal.process.send_signal(signal.SIGINT)
    terminal.end()

    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.seen)
    lines = [line for line in re.split(r"[\r\n]+", shown) if line.startswith("Surveying")]
    assert {len(line) for line in lines} == {80 - len("^C^C")}


def test_ctrl_c_overtakes_the_files_that_wait_and_shows_what_there_is(slow_tree: Path) -> None:
    terminal = Terminal("demo", str(slow_tree), "--json")

    terminal.until_some_are_done()
    terminal.process.send_signal(signal.SIGINT)
    code, output = terminal.end()

    found = json.loads(output)
    files = found["files"]
    assert code == 130
    assert found["interrupted"] is True
    assert files["left"] > 0
    assert files["read"] > 0
    assert files["read"] + files["left"] == files["found"]
    audit = Audit("sqlite:///actorbus-demo.db")
    halt = audit.messages(type="Halt")[0]
    dead = audit.messages(status="dead", limit=1_000)
    assert (str(halt.kind), halt.priority.name, str(halt.status)) == (
        "broadcast",
        "URGENT",
        "handled",
    )
    assert len(dead) == files["left"]
    assert any(one.id < halt.id for one in dead)


def test_a_second_signal_ends_at_once_and_says_so(slow_tree: Path) -> None:
    terminal = Terminal("demo", str(slow_tree))

    terminal.until_some_are_done()
    terminal.process.send_signal(signal.SIGINT)
    terminal.process.send_signal(signal.SIGTERM)
    code, output = terminal.end()

    assert (code, output) == (130, "")
    assert "interrupted twice" in terminal.seen
    assert "Traceback" not in terminal.seen


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing"], "there is no folder missing"),
        (["a-file.py"], "a-file.py is not a folder; name the one it is in"),
        (["empty"], "no Python file (*.py) is in empty or below it"),
        ([".", "--agents", "0"], "--agents"),
        ([".", "--agents", "many"], "--agents"),
        ([".", "--agents", "257"], "--agents"),
        ([".", "--audit", "mysql://user:secret@host/db"], "sqlite:///history.db"),
        ([".", "--audit", "nonsense"], "sqlite:///history.db"),
        ([".", "--colour"], "--colour"),
        ([".", "."], "unexpected extra argument"),
    ],
)
def test_wrong_usage_is_one_sentence_and_code_2(
    tmp_path: Path, arguments: list[str], says: str
) -> None:
    (tmp_path / "a-file.py").write_text("x = 1\n")
    (tmp_path / "empty" / "deep").mkdir(parents=True)
    (tmp_path / "empty" / "notes.txt").touch()

    code, stdout, stderr = _refused(*arguments)

    assert (code, stdout) == (2, "")
    assert says in stderr
    assert stderr.count("Error: ") == 1
    assert "secret" not in stderr


def test_a_wrong_setting_is_wrong_usage(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTORBUS_LOG_LEVEL", "loud")

    code, stdout, stderr = _refused(str(tree))

    assert (code, stdout) == (2, "")
    assert "log_level" in stderr


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sqlite:///no/such/folder/h.db", "does not exist"),
        ("sqlite:///text.db", "is not an SQLite database"),
        ("sqlite:///tree", "is a directory"),
    ],
)
def test_a_history_that_cannot_be_written_is_one_sentence_and_code_1(
    tree: Path, tmp_path: Path, url: str, says: str
) -> None:
    (tmp_path / "text.db").write_text("not a database, but long enough to be taken for one\n" * 99)

    code, stdout, stderr = _refused(str(tree), "--audit", url)

    assert (code, stdout) == (1, "")
    assert says in stderr
    assert stderr.count("\n") == 1


def test_a_full_disk_under_the_results_is_one_sentence_and_code_1(tree: Path) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device, not a file of ours
        result = subprocess.run(
            [*PROGRAM, "demo", str(tree)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    assert result.returncode == 1
    assert "cannot write the results: No space left on device" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_version_and_the_help_are_readable() -> None:
    runner = CliRunner()

    version = runner.invoke(app, ["--version"])
    general = runner.invoke(app, [])
    helped = runner.invoke(app, ["demo", "-h"])

    assert re.fullmatch(r"actorbus \d+\.\d+\.\d+\n", version.stdout)
    assert "demo" in general.output
    assert "audit" in general.output
    assert "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted." in helped.stdout
    assert "[PATH]" in helped.stdout
