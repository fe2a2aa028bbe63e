"""Every command line that a page or a deployment file shows is one that the program takes."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import typer
import typer.main

from actorbus.cli import app

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SKETCH = re.compile(r"\.\.\.|[|\[]|^actorbus [\w-]+,")
"""A line that stands for several."""
WRONG: Any = typer.BadParameter.__base__


def shown() -> Iterator[str]:
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            found = re.match(r"(?:    |\$ )(actorbus .*)", line)
            if found is not None:
                words = shlex.split(found[1], comments=True)
                if not SKETCH.search(" ".join(words)):
                    yield shlex.join(word for word in words if word != "&")
    docker = (ROOT / "deploy" / "Dockerfile").read_text()
    for name in ("ENTRYPOINT", "CMD"):
        assert f"\n{name} [" in docker
    entry, command = (
        json.loads(re.findall(rf"^{name} (.*)$", docker, re.MULTILINE)[0])
        for name in ("ENTRYPOINT", "CMD")
    )
    yield shlex.join([*entry, *command])


def taken(line: str) -> None:
    """Have the program read its command line, and do nothing.

    Raises:
        WRONG: it does not take it.
    """
    command: Any = typer.main.get_command(app)
    _, *words = shlex.split(line)
    while hasattr(command, "commands") and words and words[0] in command.commands:
        name, *words = words
        command = command.commands[name]
    if hasattr(command, "commands") and words[:1] not in ([], ["--help"]):
        raise typer.BadParameter(f"no command {words[0]!r}")
    command.make_context("actorbus", words).close()


@pytest.mark.parametrize("line", dict.fromkeys(shown()))
def test_a_command_line_that_is_shown_is_taken(
    line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ACTORBUS_BUS", "redis://host")
    monkeypatch.setenv("ACTORBUS_AUDIT", f"sqlite:///{tmp_path / 'history.db'}")

    taken(line)


def usages(command: Any, name: str) -> Iterator[str]:
    with command.make_context(name, [], resilient_parsing=True) as context:
        yield command.get_usage(context)
    for one, inner in getattr(command, "commands", {}).items():
        yield from usages(inner, f"{name} {one}")


def test_no_argument_is_bracketed_twice() -> None:
    shown = list(usages(typer.main.get_command(app), "actorbus"))

    assert len(shown) > 30
    assert [one for one in shown if re.search(r"[\[{][\[{]", one)] == []


def test_there_are_some_of_each_page() -> None:
    assert len(list(shown())) > 30


@pytest.mark.parametrize("line", ["actorbus nod", "actorbus node --lod x", "actorbus ask"])
def test_what_is_no_command_line_is_found(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTORBUS_BUS", "redis://host")

    with pytest.raises(WRONG):
        taken(line)
