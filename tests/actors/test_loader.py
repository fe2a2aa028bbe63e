from __future__ import annotations

import importlib
import sys
import threading
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from actorbus import AgentFailed, BusClosed, InvalidArgument, Node, NoProvider, UnknownRecipient
from actorbus.telemetry import Event, HookFailed, ModuleBroken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Write = Callable[..., Path]

DEADLINE = 10.0

UPPER = """
    from actorbus import agent

    @agent(capabilities=("shout",))
    def upper(text: str) -> str:
        "Shouts."
        return text.upper()
"""


@pytest.fixture
def node() -> Iterator[Node]:
    with Node() as node:
        yield node


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """Writes files below a folder of its own; what they import is forgotten afterwards."""
    before = dict(sys.modules)
    path, meta_path = list(sys.path), list(sys.meta_path)

    def write(name: str, text: str = "") -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))
        return file

    yield write
    for name in set(sys.modules) - set(before):
        del sys.modules[name]
    sys.path[:] = path
    assert sys.meta_path == meta_path


class TestFinding:
    def test_classes_and_functions_of_a_file_are_found(self, node: Node, write: Write) -> None:
        file = write(
            "team.py",
            """
            from actorbus import Agent, agent, handles

            class WordCounter(Agent):
                '''Counts words.'''
                capabilities = ("count-words",)

                @handles
                def count(self, text: str) -> int:
                    return len(text.split())

            @agent
            def to_upper(text: str) -> str:
                return text.upper()
            """,
        )

        loaded = node.load(file)

        assert loaded.broken == ()
        assert list(loaded.agents) == ["word-counter", "to-upper"]
        assert node.ask("word-counter", "to be or not").get(DEADLINE) == 4
        assert node.ask("to-upper", "a").get(DEADLINE) == "A"

    def test_what_is_loaded_is_described_without_an_instance(
        self, node: Node, write: Write
    ) -> None:
        file = write(
            "team.py",
            """
            from actorbus import Agent, handles

            class Clerk(Agent):
                '''Keeps the books.

                All of them.
                '''
                capabilities = ("books", "taxes")

                def __init__(self) -> None:
                    raise AssertionError("not needed yet")

                @handles
                def add(self, entry: str | int) -> None: ...

                @handles
                def drop(self, entry: bytes) -> None: ...
            """,
        )

        [clerk] = node.load(str(file)).agents.values()

        assert clerk.name == "clerk"
        assert clerk.agent_type == "team:Clerk"
        assert clerk.capabilities == ("books", "taxes")
        assert clerk.doc == "Keeps the books.\n\nAll of them."
        assert clerk.handles == ("str", "int", "bytes")
        assert clerk.path == str(file)

    def test_what_is_imported_private_abstract_or_a_plain_function_is_no_agent(
        self, node: Node, write: Write
    ) -> None:
        write("pack/__init__.py")
        write("pack/one.py", UPPER)
        write(
            "pack/two.py",
            """
            import abc
            from actorbus import Agent, Node, agent, handles
            from pack.one import upper

            def helper(text: str) -> str:
                return text

            class _Base(Agent):
                @handles
                def take(self, text: str) -> str:
                    return text

            class Partly(_Base, abc.ABC):
                @abc.abstractmethod
                def finish(self) -> None: ...

            class Whole(Partly):
                def finish(self) -> None: ...

            same = Whole
            """,
        )

        loaded = node.load(write("pack/three.py").parent)

        assert loaded.broken == ()
        assert {one.agent_type for one in loaded.agents.values()} == {
            "pack.one:upper",
            "pack.two:Whole",
        }

    def test_a_folder_is_searched_to_its_depth_but_not_what_is_private_or_hidden(
        self, node: Node, write: Write, tmp_path: Path
    ) -> None:
        for name in ("a", "deep/er/b", "_c", ".d", "_e/f", ".g/h", "__pycache__/i", "__main__"):
            word = name.rpartition("/")[2].strip("._")
            write(f"{name}.py", UPPER.replace("def upper", f"def {word}"))
        write("notes.txt", "not Python")

        loaded = node.load(tmp_path)

        assert sorted(loaded.agents) == ["a", "b"]

    def test_a_package_is_found_by_its_name(self, node: Node, write: Write, tmp_path: Path) -> None:
        sys.path.append(str(tmp_path))
        write("outer/__init__.py", "raise_nothing = True")
        write("outer/inner/__init__.py", UPPER)
        write("outer/inner/lower.py", UPPER.replace("upper", "lower"))

        loaded = node.load("outer.inner")
        module = node.load("outer.inner.lower")

        assert {one.agent_type for one in loaded.agents.values()} == {
            "outer.inner:upper",
            "outer.inner.lower:lower",
        }
        assert list(module.agents) == ["lower"]

    @pytest.mark.parametrize("path", ["nothing/here", "no.such.module", "actorbus.nowhere", "sys"])
    def test_nothing_to_load_is_an_error(self, node: Node, path: str) -> None:
        with pytest.raises(InvalidArgument, match="no such file or folder, and no module"):
            node.load(path)

    def test_a_path_that_cannot_be_meant_is_an_error(self, node: Node, write: Write) -> None:
        text = write("agents.txt")

        with pytest.raises(InvalidArgument, match=r"ends in \.py"):
            node.load(text)
        with pytest.raises(InvalidArgument, match="a file, a folder, or a package"):
            node.load("")
        with pytest.raises(InvalidArgument, match="a file, a folder, or a package"):
            node.load(3)  # type: ignore[arg-type]

    def test_a_node_that_does_not_run_loads_nothing(self, write: Write) -> None:
        file = write("team.py", "raise RuntimeError('imported')")

        with pytest.raises(BusClosed):
            Node().load(file)


class TestImporting:
    def test_relative_imports_of_a_package_work(
        self, node: Node, write: Write, tmp_path: Path
    ) -> None:
        write("pack/__init__.py")
        write("pack/words.py", "class Text(str): ...")
        write("pack/sub/__init__.py")
        file = write(
            "pack/sub/team.py",
            """
            from actorbus import agent
            from ..words import Text

            @agent
            def upper(text: Text) -> str:
                return text.upper()
            """,
        )

        loaded = node.load(file)

        assert loaded.broken == ()
        assert loaded.agents["upper"].agent_type == "pack.sub.team:upper"
        assert str(tmp_path) not in sys.path

    def test_neighbours_share_one_module_that_leaves_no_plain_name_behind(
        self, node: Node, write: Write, tmp_path: Path
    ) -> None:
        write(
            "a_messages.py",
            """
            from actorbus import agent

            class Text(str): ...

            @agent
            def reader(text: Text) -> str:
                return "reader"
            """,
        )
        for name in ("one", "two"):
            write(
                f"{name}.py",
                f"""
                from actorbus import agent
                import a_messages

                @agent
                def {name}(text: a_messages.Text) -> str:
                    return {name!r}
                """,
            )

        loaded = node.load(tmp_path)

        assert loaded.broken == ()
        [text] = {
            cell.handler_table.handlers[0].types[0]
            for cell in (node.ref(name)._cell.agent_class for name in loaded.agents)  # type: ignore[union-attr]
        }
        assert node.ask("two", text("x")).get(DEADLINE) == "two"
        assert "a_messages" not in sys.modules
        assert str(tmp_path) not in sys.path

    def test_neighbours_may_import_each_other_in_a_ring(
        self, node: Node, write: Write, tmp_path: Path
    ) -> None:
        write("a_ring.py", UPPER + "\n    import b_ring\n")
        write("b_ring.py", UPPER.replace("upper", "lower") + "\n    import a_ring\n")

        loaded = node.load(tmp_path)

        assert loaded.broken == ()
        assert sorted(loaded.agents) == ["lower", "upper"]
        assert "a_ring" not in sys.modules

    def test_files_of_one_name_in_two_folders_do_not_meet(
        self, node: Node, write: Write, tmp_path: Path
    ) -> None:
        for folder in ("left", "right"):
            write(f"{folder}/helpers.py", f"side = {folder!r}")
            write(
                f"{folder}/json.py",
                f"""
                from actorbus import agent
                from helpers import side

                @agent
                def {folder}(text: str) -> str:
                    return side
                """,
            )

        loaded = node.load(tmp_path)

        assert loaded.broken == ()
        assert node.ask("left", "").get(DEADLINE) == "left"
        assert node.ask("right", "").get(DEADLINE) == "right"
        assert "side" not in vars(sys.modules["json"])

    def test_the_same_path_twice_changes_nothing(
        self, node: Node, write: Write, tmp_path: Path
    ) -> None:
        write("team.py", UPPER + "\n    print('imported')\n")

        first = node.load(tmp_path)
        node.ask("upper", "a").get(DEADLINE)
        second = node.load(tmp_path / "team.py")

        assert first == second
        assert second.broken == ()

    def test_it_is_imported_once(
        self, node: Node, write: Write, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = write("team.py", UPPER + "\n    print('imported')\n")

        node.load(file)
        node.load(file)

        assert capsys.readouterr().out == "imported\n"


class TestBroken:
    @pytest.mark.parametrize(
        ("text", "line", "error"),
        [
            ("x = 1\ny = (\n", 2, "SyntaxError: '(' was never closed"),
            ("import no_such_thing\n", 1, "ModuleNotFoundError: No module named 'no_such_thing'"),
            ("x = 1\n\nx / 0\n", 3, "ZeroDivisionError: division by zero"),
            ("import json\njson.loads('{')\n", 2, "JSONDecodeError: Expecting property name"),
            ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
            ("def f():\n    raise ValueError\n\nf()\n", 2, "ValueError"),
            ("from . import sibling\n", 1, "ImportError: attempted relative import"),
            ("import asyncio\nraise asyncio.CancelledError\n", 2, "CancelledError"),
            ("x = 1\n\ny = '\0'\nz = '\0'\n", 3, "SyntaxError: source code"),
        ],
    )
    def test_a_broken_module_is_named_with_its_line_and_the_others_are_loaded(
        self, node: Node, write: Write, tmp_path: Path, text: str, line: int, error: str
    ) -> None:
        events: list[Event] = []
        node.telemetry.listen(events.append)
        bad = write("bad.py")
        bad.write_text(text)
        write("good.py", UPPER)

        loaded = node.load(tmp_path)

        [broken] = loaded.broken
        assert (broken.path, broken.line) == (str(bad), line)
        assert broken.error.startswith(error)
        assert str(broken) == f"{bad}:{line}: {broken.error}"
        assert list(loaded.agents) == ["upper"]
        assert ModuleBroken(str(bad), line, broken.error) in events

    def test_a_class_that_cannot_be_an_agent_breaks_its_module_at_its_line(
        self, node: Node, write: Write
    ) -> None:
        file = write(
            "team.py",
            """\
            from actorbus import Agent, handles

            class Clerk(Agent):
                @handles
                def add(self, entry): ...
            """,
        )

        [broken] = node.load(file).broken

        assert broken.line == 3
        assert "has no type hint" in broken.error

    def test_what_is_no_text_is_broken(self, node: Node, write: Write) -> None:
        file = write("team.py")
        file.write_bytes(b"x = '\xff\xfe'\n")

        [broken] = node.load(file).broken

        assert broken.error.startswith("SyntaxError")

    def test_an_interrupt_is_not_swallowed(self, node: Node, write: Write) -> None:
        file = write("team.py", "raise KeyboardInterrupt")

        with pytest.raises(KeyboardInterrupt):
            node.load(file)

    def test_a_broken_neighbour_is_told_at_the_line_that_imports_it(
        self, node: Node, write: Write, tmp_path: Path
    ) -> None:
        write("a_helper.py", "\n\nx = (")
        write("b_user.py", "x = 1\nimport a_helper")

        loaded = node.load(tmp_path)

        assert [(Path(one.path).name, one.line) for one in loaded.broken] == [
            ("a_helper.py", 3),
            ("b_user.py", 2),
        ]

    def test_a_broken_package_is_told_for_each_of_its_files(
        self, node: Node, write: Write, tmp_path: Path
    ) -> None:
        init = write("pack/__init__.py", "x = 1\nx / 0")
        write("pack/team.py", UPPER)

        first, second = node.load(tmp_path / "pack").broken

        assert (first.path, first.line) == (str(init), 2)
        assert second.line is None
        assert second.error == f"ZeroDivisionError: division by zero (at {init}:2)"

    def test_a_broken_parent_of_a_named_package_is_told(
        self, node: Node, write: Write, tmp_path: Path
    ) -> None:
        sys.path.append(str(tmp_path))
        write("outer/__init__.py", "import no_such_thing")
        write("outer/inner.py", UPPER)

        [broken] = node.load("outer.inner").broken

        assert broken.error == "ModuleNotFoundError: No module named 'no_such_thing'"

    def test_a_package_whose_name_is_taken_is_told(
        self, node: Node, write: Write, tmp_path: Path
    ) -> None:
        write("json/__init__.py")
        write("json/team.py", UPPER)

        loaded = node.load(tmp_path)

        assert len(loaded.broken) == 2
        assert all("the name 'json' belongs to" in one.error for one in loaded.broken)

    def test_a_module_that_is_mended_is_loaded_the_next_time(
        self, node: Node, write: Write
    ) -> None:
        file = write("team.py", "x = (")
        node.load(file)
        write("team.py", UPPER)

        loaded = node.load(file)

        assert loaded.broken == ()
        assert list(loaded.agents) == ["upper"]

    def test_names_that_clash_are_told_and_the_first_one_keeps_the_name(
        self, node: Node, write: Write, tmp_path: Path
    ) -> None:
        write("a.py", UPPER)
        write("b.py", UPPER.replace("text.upper()", "'b'"))

        loaded = node.load(tmp_path)

        [broken] = loaded.broken
        assert (Path(broken.path).name, broken.line) == ("b.py", 4)
        assert broken.error.startswith("the name 'upper' is taken by a:upper")
        assert node.ask("upper", "a").get(DEADLINE) == "A"

    def test_a_name_that_runs_already_is_told(self, node: Node, write: Write) -> None:
        def lower(text: str) -> str:
            return text.lower()

        node.spawn(lower, name="upper")

        loaded = node.load(write("team.py", UPPER))

        assert len(loaded.broken) == 1
        assert node.ask("upper", "A").get(DEADLINE) == "a"

    def test_an_agent_that_needs_arguments_is_told(self, node: Node, write: Write) -> None:
        file = write(
            "team.py",
            """\
            from actorbus import Agent

            class Clerk(Agent):
                def __init__(self, books: int, ink: int = 0) -> None: ...
            """,
        )

        loaded = node.load(file)

        [broken] = loaded.broken
        assert broken.line == 3
        assert "'clerk' cannot be made by itself" in broken.error
        assert "'books'" in broken.error


class TestStandingBy:
    def test_an_agent_is_made_by_the_first_message_to_its_name(
        self, node: Node, write: Write
    ) -> None:
        node.load(write("team.py", UPPER))

        before = node.registry.get("upper")
        node.tell("upper", "a")
        after = node.registry.get("upper")

        assert before is None
        assert after is not None
        assert after.agent_type == "team:upper"
        assert node.ref("upper")._cell.failover  # type: ignore[union-attr]

    def test_all_who_offer_a_capability_are_made_by_the_first_message_to_it(
        self, node: Node, write: Write, tmp_path: Path
    ) -> None:
        for name in ("one", "two", "three"):
            write(f"{name}.py", UPPER.replace("def upper", f"def {name}"))
        node.load(tmp_path)

        reply = node.any("shout").ask("a").get(DEADLINE)

        assert reply == "A"
        assert {one.name for one in node.registry.find("shout")} == {"one", "two", "three"}
        assert node.all("shout").ask("a").get(DEADLINE) == ["A", "A", "A"]

    def test_all_reaches_those_who_stand_by_too(
        self, node: Node, write: Write, tmp_path: Path
    ) -> None:
        write("one.py", UPPER)
        write("two.py", UPPER.replace("def upper", "def lower"))
        node.load(tmp_path)

        replies = node.all("shout").ask("a").get(DEADLINE)

        assert replies == ["A", "A"]

    def test_a_broadcast_makes_nobody(self, node: Node, write: Write) -> None:
        node.load(write("team.py", UPPER))

        assert node.broadcast("hello") == 0

    def test_an_agent_that_subscribes_is_made_at_once(self, node: Node, write: Write) -> None:
        text = UPPER.replace('capabilities=("shout",)', 'subscriptions=("prices.*",)')
        node.load(write("team.py", text))

        assert node.topic("prices.eur").publish("1") == 1

    def test_errors_offer_those_who_stand_by(self, node: Node, write: Write) -> None:
        node.load(write("team.py", UPPER))

        with pytest.raises(UnknownRecipient, match="Did you mean 'upper'"):
            node.ref("uper")
        with pytest.raises(NoProvider, match="Did you mean 'shout'"):
            node.any("shuot").tell("a")

    def test_many_first_messages_make_one_agent(self, node: Node, write: Write) -> None:
        node.load(
            write(
                "team.py",
                """
                from actorbus import Agent, handles

                class Counter(Agent):
                    capabilities = ("count",)
                    made = 0

                    def __init__(self) -> None:
                        Counter.made += 1
                        self.seen = 0

                    @handles
                    def count(self, text: str) -> tuple[int, int]:
                        self.seen += 1
                        return Counter.made, self.seen
                """,
            )
        )
        together = threading.Barrier(8)

        def send(number: int) -> None:
            together.wait(DEADLINE)
            if number % 2:
                node.tell("counter", "a")
            else:
                node.any("count").tell("a")

        threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)

        assert node.ask("counter", "a").get(DEADLINE) == (1, 9)

    def test_an_agent_that_cannot_be_made_fails_its_sender_and_goes_on_standing_by(
        self, node: Node, write: Write
    ) -> None:
        node.load(
            write(
                "team.py",
                """
                from actorbus import Agent, handles

                class Clerk(Agent):
                    capabilities = ("books",)
                    ink = 0

                    def __init__(self) -> None:
                        if not Clerk.ink:
                            raise SystemExit("no ink")

                    @handles
                    def add(self, entry: str) -> str:
                        return entry
                """,
            )
        )
        events: list[Event] = []
        node.telemetry.listen(events.append)

        with pytest.raises(AgentFailed, match="SystemExit: no ink"):
            node.tell("clerk", "a")
        by_name = node.ask("clerk", "a")
        by_capability = node.any("books").ask("a")
        with pytest.raises(AgentFailed):
            by_name.get(DEADLINE)
        with pytest.raises(AgentFailed):
            by_capability.get(DEADLINE)
        next(
            module for name, module in sys.modules.items() if name.startswith("team@")
        ).Clerk.ink = 1

        assert node.ask("clerk", "a").get(DEADLINE) == "a"
        assert any(isinstance(event, HookFailed) and event.agent == "clerk" for event in events)

    def test_an_init_that_sends_to_its_own_name_finds_nobody(
        self, node: Node, write: Write
    ) -> None:
        node.load(
            write(
                "team.py",
                """
                from actorbus import Agent, UnknownRecipient, handles

                class Clerk(Agent):
                    def __init__(self) -> None:
                        self.alone = False
                        try:
                            self.tell("clerk", "a")
                        except UnknownRecipient:
                            self.alone = True

                    @handles
                    def ask_alone(self, _: str) -> bool:
                        return self.alone
                """,
            )
        )

        assert node.ask("clerk", "a").get(DEADLINE) is True

    def test_an_agent_that_was_stopped_does_not_come_back_by_itself(
        self, node: Node, write: Write
    ) -> None:
        file = write("team.py", UPPER)
        node.load(file)
        ref = node.ref("upper")
        gone = threading.Event()
        node.registry.watch(lambda _: gone.set())

        ref.stop()

        assert gone.wait(DEADLINE)
        with pytest.raises(UnknownRecipient):
            node.tell("upper", "a")
        node.load(file)
        assert node.ask("upper", "a").get(DEADLINE) == "A"


def test_an_agent_is_called_alike_however_its_file_was_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "plain" / "deep"
    folder.mkdir(parents=True)
    (folder / "crewed.py").write_text(
        "from actorbus import Agent\n\n\nclass Crewed(Agent):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(folder))

    as_part = importlib.import_module("plain.deep.crewed").Crewed
    alone = importlib.import_module("crewed").Crewed
    with Node() as node:
        loaded = node.load(folder / "crewed.py").agents["crewed"]

    assert as_part.agent_type == alone.agent_type == loaded.agent_type == "crewed:Crewed"
    for name in ("plain.deep.crewed", "plain.deep", "plain", "crewed"):
        sys.modules.pop(name)
