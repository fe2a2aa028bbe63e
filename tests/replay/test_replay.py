"""What replays without a difference, and on what."""

from __future__ import annotations

import asyncio
import functools
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from actorbus import Agent, InvalidHandler, Node, Priority, Reject, agent, handles
from actorbus.errors import NotReplayable
from actorbus.persistence.audit import Audit
from actorbus.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from actorbus.persistence.answers import MessageView

    Recorded = Callable[..., list[MessageView]]


class Editor(Agent):
    @handles
    def edit(self, draft: str) -> str:
        verdict = self.ask("checker", len(draft)).get()
        return f"{draft} ({verdict})"


class Checker(Agent):
    @handles
    def check(self, length: int) -> str:
        return str(self.ask("rules", {"length": length}).get())


@agent
def rules(asked: dict) -> str:  # type: ignore[type-arg]
    return "long enough" if asked["length"] > 10 else "too short"


CHAIN: dict[str, Any] = {"editor": Editor, "checker": Checker, "rules": rules}


class AsyncEditor(Agent):
    @handles
    async def edit(self, draft: str) -> str:
        first, second = await asyncio.gather(self._ask_about(draft, 1), self._ask_about(draft, 2))
        return f"{first} {second}"

    async def _ask_about(self, draft: str, factor: int) -> str:
        await asyncio.sleep(0.01 / factor)
        return str(await self.ask("rules", {"length": len(draft) * factor}))


class Crew(Agent):
    @handles
    def work(self, sizes: list) -> int:  # type: ignore[type-arg]
        workers = [self.spawn(Worker) for _ in sizes]
        replies = [worker.ask(size) for worker, size in zip(workers, sizes, strict=True)]
        return sum(reply.get() for reply in replies)


class Worker(Agent):
    @handles
    def square(self, size: int) -> int:
        return size * size


class Counter(Agent):
    """What it answers depends on the order of its messages."""

    def __init__(self) -> None:
        self.total = 0

    @handles
    def add(self, number: int) -> None:
        self.total = self.total * 3 + number

    @handles
    def tell_total(self, _: str) -> int:
        return self.total


class Source(Agent):
    @handles
    def send(self, number: int) -> None:
        for part in range(3):
            self.tell("counter", number * 10 + part)


class Herald(Agent):
    @handles
    def announce(self, price: int) -> None:
        self.publish("prices.eur", {"price": price})
        self.broadcast(f"price is {price}")


class Trader(Agent):
    subscriptions = ("prices.*",)

    @handles
    def bought(self, tick: dict) -> None:  # type: ignore[type-arg]
        self.tell("ledger", tick["price"])

    @handles
    def heard(self, news: str) -> None:
        self.tell("ledger", len(news))


class Ledger(Agent):
    @handles
    def book(self, amount: int) -> None:
        pass

    @handles
    def hear(self, news: str) -> None:
        pass


def ask(name: str, payload: Any) -> Callable[[Node], object]:
    return lambda node: node.ask(name, payload).get()


def test_a_chain_of_asks_replays_the_same(recorded: Recorded) -> None:
    views = recorded(CHAIN, ask("editor", "once upon a time"))

    outcome = Replay(views, agents=CHAIN).run()

    assert outcome.same, outcome.divergence
    assert [step.said.payload for step in outcome.steps] == [view.payload for view in views]
    assert outcome.recorded == len(views) == 6


@pytest.mark.parametrize("given", [["editor"], ["checker"], ["rules"], ["editor", "rules"]])
def test_any_part_of_the_cast_replays_against_the_rest_of_history(
    recorded: Recorded, given: list[str]
) -> None:
    views = recorded(CHAIN, ask("editor", "once upon a time"))

    outcome = Replay(views, agents={name: CHAIN[name] for name in given}).run()

    assert outcome.same, outcome.divergence
    assert {step.said.sender for step in outcome.steps if not step.from_history} == set(given)


def test_async_handlers_replay_as_they_interleaved(recorded: Recorded) -> None:
    cast = {"editor": AsyncEditor, "rules": rules}
    views = recorded(cast, ask("editor", "once upon"))

    everybody = Replay(views, agents=cast).run()
    alone = Replay(views, agents={"editor": AsyncEditor}).run()

    assert everybody.same, everybody.divergence
    assert alone.same, alone.divergence


def test_children_replay_under_the_names_that_they_had(recorded: Recorded) -> None:
    def drive(node: Node) -> None:
        node.spawn(Worker).stop()  # so that those of the conversation are worker-2 and -3
        node.ask("crew", [3, 4]).get()

    views = recorded({"crew": Crew}, drive)

    outcome = Replay(views, agents={"crew": Crew}).run()

    assert outcome.same, outcome.divergence
    assert {view.recipient for view in views} >= {"worker-2", "worker-3"}
    assert all(not step.from_history for step in outcome.steps if step.said.sender)


@pytest.mark.parametrize("seed", range(5))
def test_an_agent_gets_its_messages_in_the_order_in_which_it_had_them(
    recorded: Recorded, seed: int
) -> None:
    cast = {"a": Source, "b": Source, "c": Source, "counter": Counter}

    def drive(node: Node) -> None:
        for number, name in enumerate("abc"):
            node.tell(name, number)
        node.drain(10)
        node.ask("counter", "?").get()

    views = recorded(cast, drive)

    outcome = Replay(views, agents=cast, seed=seed).run()

    assert outcome.same, outcome.divergence


def test_the_order_is_that_of_the_record_and_not_of_sending(recorded: Recorded) -> None:
    def drive(node: Node) -> None:
        for number in (1, 2):
            node.tell("counter", number)
        node.drain(10)
        node.ask("counter", "?").get()

    one, two, request, reply = recorded({"counter": Counter}, drive)
    swapped = [
        replace(one, deliveries=two.deliveries),
        replace(two, deliveries=one.deliveries),
        request,
        replace(reply, payload=(0 * 3 + 2) * 3 + 1),
    ]

    outcome = Replay(swapped, agents={"counter": Counter}).run()

    assert reply.payload == (0 * 3 + 1) * 3 + 2
    assert outcome.same, outcome.divergence


class Asks(Agent):
    @handles
    def fetch(self, number: int) -> None:
        self.tell("counter", self.ask("slow", number).get())


def test_handlers_go_on_in_the_order_of_their_answers(recorded: Recorded) -> None:
    """Two threads waited at once, and the first to wait was the last to go on."""
    views = recorded(
        {"a": Asks, "b": Asks, "slow": Worker, "counter": Counter},
        lambda node: [node.tell(name, number) for name, number in (("a", 1), ("b", 2))],
    )
    moment = views[0].created_at
    by_sender = {f"{view.kind} to {view.recipient}": view for view in views}

    def after(view: MessageView, seconds: float, ends: float | None = None) -> MessageView:
        sent = moment + timedelta(seconds=seconds)
        ended = moment + timedelta(seconds=seconds if ends is None else ends)
        only = replace(view.deliveries[0], started_at=sent, ended_at=ended)
        return replace(view, created_at=sent, started_at=sent, ended_at=ended, deliveries=(only,))

    asked = {view.sender: view for view in views if view.recipient == "slow"}
    told = {view.sender: view for view in views if view.recipient == "counter"}
    retold = [
        after(by_sender["tell to a"], 0, 3),
        after(by_sender["tell to b"], 0.1, 2),
        after(asked["a"], 0.2),
        after(asked["b"], 0.3),
        after(by_sender["reply to b"], 2),
        after(told["b"], 2),
        after(by_sender["reply to a"], 3),
        after(told["a"], 3),
    ]

    outcome = Replay(retold, agents={"a": Asks, "b": Asks}).run()

    assert outcome.same, outcome.divergence
    assert [step.said.sender for step in outcome.steps if step.said.recipient == "counter"] == [
        "b",
        "a",
    ]


class Boss(Agent):
    @handles
    def share(self, count: int) -> None:
        for number in range(count):
            self.any("fetch").tell(number)


class Fetcher(Agent):
    capabilities = ("fetch",)

    @handles
    def fetch(self, number: int) -> None:
        self.tell("counter", self.ask("square", number).get())


class AsyncFetcher(Agent):
    capabilities = ("fetch",)
    concurrency = 4

    @handles
    async def fetch(self, number: int) -> None:
        self.tell("counter", await self.ask("square", number))


@pytest.mark.parametrize("fetcher", [Fetcher, AsyncFetcher])
@pytest.mark.parametrize("given", ["all", "fetchers", "counter"])
def test_a_busy_team_replays_whatever_the_seed(
    recorded: Recorded, fetcher: type[Agent], given: str
) -> None:
    fetchers = dict.fromkeys("abc", fetcher)
    cast = {"boss": Boss, **fetchers, "square": Worker, "counter": Counter}

    def drive(node: Node) -> None:
        node.tell("boss", 30)
        node.drain(10)
        node.ask("counter", "?").get()

    views = recorded(cast, drive)
    parts: dict[str, dict[str, Any]] = {
        "all": cast,
        "fetchers": fetchers,
        "counter": {"counter": Counter},
    }

    for seed in range(3):
        outcome = Replay(views, agents=parts[given], seed=seed).run()
        assert outcome.same, outcome.divergence


def test_a_handler_that_waits_when_it_is_over_is_ended(recorded: Recorded) -> None:
    ended: list[str] = []

    class Stubborn(Agent):
        @handles
        def insist(self, question: str) -> str:
            try:
                while True:
                    try:
                        return str(self.ask("oracle", f"{question}{len(ended)}").get())
                    except TimeoutError:
                        continue
            finally:
                ended.append(question)

    views = recorded(
        {"stubborn": Stubborn, "oracle": Oracle}, lambda node: node.ask("stubborn", "why").get()
    )

    outcome = Replay(views, agents={"stubborn": Stubborn}).run()

    assert outcome.divergence is not None
    assert ended == ["why", "why"]


class Oracle(Agent):
    @handles
    def answer(self, question: str) -> str:
        return question


def test_what_overtook_in_the_record_overtakes_again(recorded: Recorded) -> None:
    def drive(node: Node) -> None:
        node.spawn(Slow, name="slow").tell("hold the counter up")
        node.ref("slow").ask(0).get()
        for number in (1, 2):
            node.tell("counter", number, priority=Priority.LOW)
        node.tell("counter", 3, priority=Priority.URGENT)
        node.ask("counter", "?", priority=Priority.LOW).get()

    views = recorded({"counter": Counter}, drive)

    outcome = Replay(views, agents={"counter": Counter}).run()

    assert outcome.same, outcome.divergence


class Slow(Agent):
    @handles
    def wait(self, _: str) -> None:
        pass

    @handles
    def done(self, _: int) -> None:
        pass


def test_topics_and_broadcasts_replay_the_same(recorded: Recorded) -> None:
    cast = {"herald": Herald, "trader": Trader, "ledger": Ledger}
    views = recorded(cast, lambda node: node.tell("herald", 12))

    outcome = Replay(views, agents=cast).run()

    assert outcome.same, outcome.divergence
    assert {view.kind for view in views} == {"tell", "event", "broadcast"}


def test_a_broadcast_does_not_reach_who_was_not_there_yet(recorded: Recorded) -> None:
    def drive(node: Node) -> None:
        node.tell("herald", 12)
        node.drain(10)
        node.spawn(Trader, name="late")

    cast = {"herald": Herald, "trader": Trader, "ledger": Ledger}
    views = recorded(cast, drive)
    broadcasts = [view for view in views if view.kind == "broadcast"]

    outcome = Replay(broadcasts, agents={"late": Trader, "ledger": Ledger}).run()

    assert outcome.same, outcome.divergence


class Chooser(Agent):
    @handles
    def spread(self, numbers: list) -> int:  # type: ignore[type-arg]
        for number in numbers:
            self.any("square").ask(number).get()
        return sum(self.all("square").ask(1).get())


class Squarer(Worker):
    capabilities = ("square",)


@pytest.mark.parametrize("given", [["chooser", "one", "two"], ["chooser"]])
def test_whom_load_chose_by_capability_is_chosen_again(
    recorded: Recorded, given: list[str]
) -> None:
    cast = {"chooser": Chooser, "one": Squarer, "two": Squarer}
    views = recorded(cast, ask("chooser", list(range(12))))

    outcome = Replay(views, agents={name: cast[name] for name in given}).run()

    assert outcome.same, outcome.divergence


class Ticker(Agent):
    def __init__(self) -> None:
        self.left = 3

    @handles
    def begin(self, _: str) -> None:
        self.ticking = self.schedule(every=0.01, payload=1)

    @handles
    def tick(self, step: int) -> None:
        self.left -= step
        if self.left >= 0:  # one that was under way when it was cancelled comes all the same
            self.tell("ledger", self.left)
        if not self.left:
            self.ticking.cancel()


class Reminder(Agent):
    @handles
    def remind(self, what: str) -> None:
        self.tell("ledger", 1, delay=0.05)
        self.tell("ledger", len(what))


def test_timers_and_delays_take_no_real_time(recorded: Recorded) -> None:
    cast = {"reminder": Reminder, "ticker": Ticker, "ledger": Ledger}

    def drive(node: Node) -> None:
        node.tell("ticker", "go")
        node.tell("reminder", "milk")
        for _ in range(200):
            if sum(one.recipient == "ledger" for one in node.history.list()) == 5:
                return
            node.mailbox("clock").take(1, 0.05)

    views = recorded(cast, drive)

    outcome = Replay(views, agents=cast).run()

    assert outcome.same, outcome.divergence
    assert sum(step.said.recipient == "ledger" for step in outcome.steps) == 5


class Refuser(Agent):
    @handles
    def refuse(self, word: str) -> str:
        raise Reject("not today")

    @handles
    def fail(self, number: int) -> int:
        return 1 // number


class Asker(Agent):
    @handles
    def ask_both(self, _: str) -> list:  # type: ignore[type-arg]
        said = []
        for payload in ("word", 0):
            try:
                self.ask("refuser", payload).get()
            except Exception as error:
                said.append(f"{type(error).__name__}: {error}")
        return said


@pytest.mark.parametrize("given", [["asker", "refuser"], ["asker"]])
def test_errors_come_again_whoever_made_them(recorded: Recorded, given: list[str]) -> None:
    cast = {"asker": Asker, "refuser": Refuser}
    views = recorded(cast, ask("asker", "go"))

    outcome = Replay(views, agents={name: cast[name] for name in given}).run()

    assert outcome.same, outcome.divergence
    assert "ZeroDivisionError" in str(views[-1].payload)


class Hasty(Agent):
    @handles
    def hurry(self, _: str) -> str:
        try:
            return str(self.ask("nobody-answers", "?", timeout=0.05).get())
        except TimeoutError as error:
            return f"gave up: {type(error).__name__}"


def test_an_ask_that_timed_out_times_out_again_at_once(recorded: Recorded) -> None:
    def drive(node: Node) -> None:
        node.mailbox("nobody-answers")
        node.ask("hasty", "go").get()

    views = recorded({"hasty": Hasty}, drive)

    outcome = Replay(views, agents={"hasty": Hasty}).run()

    assert outcome.same, outcome.divergence
    assert views[-1].payload == "gave up: AskTimeout"


class Forwarder(Agent):
    @handles
    def forward(self, draft: str) -> Any:
        return self.ask("rules", {"length": len(draft)})


@pytest.mark.parametrize("given", [["forwarder", "rules"], ["forwarder"]])
def test_a_reply_that_is_passed_on_is_compared_too(recorded: Recorded, given: list[str]) -> None:
    cast = {"forwarder": Forwarder, "rules": rules}
    views = recorded(cast, ask("forwarder", "abc"))

    outcome = Replay(views, agents={name: cast[name] for name in given}).run()

    assert outcome.same, outcome.divergence
    assert len(outcome.steps) == 4


class Threaded(Worker):
    dispatcher = "thread"


def test_an_agent_that_wants_a_thread_replays(recorded: Recorded) -> None:
    views = recorded({"worker": Threaded}, ask("worker", 7))

    outcome = Replay(views, agents={"worker": Threaded}).run()

    assert outcome.same, outcome.divergence


def test_arguments_are_given_by_a_partial(recorded: Recorded) -> None:
    class Adder(Agent):
        def __init__(self, by: int, *, twice: bool = False) -> None:
            self.by = by * (1 + twice)

        @handles
        def add(self, number: int) -> int:
            return number + self.by

    made = functools.partial(Adder, 2, twice=True)
    views = recorded({}, lambda node: node.spawn(Adder, 2, twice=True, name="adder").ask(1).get())

    outcome = Replay(views, agents={"adder": made}).run()

    assert outcome.same, outcome.divergence
    assert views[-1].payload == 5


def test_shared_state_begins_empty_or_from_a_snapshot(recorded: Recorded) -> None:
    class Memory(Agent):
        @handles
        def recall(self, key: str) -> list:  # type: ignore[type-arg]
            return [self.context.get(key), self.private.get(key)]

    def drive(node: Node) -> None:
        node.context.set("x", 1)
        node.context.bound_to("memory").namespace("agent/memory").set("x", 2)
        node.ask("memory", "x").get()

    views = recorded({"memory": Memory}, drive)
    state = {"global": {"x": 1}, "agent/memory": {"x": 2}}

    empty = Replay(views, agents={"memory": Memory}).run()
    restored = Replay(views, agents={"memory": Memory}, context=state).run()

    assert empty.divergence is not None
    assert empty.divergence.got is not None
    assert empty.divergence.got.payload == [None, None]
    assert restored.same, restored.divergence


def test_agents_may_be_loaded_from_a_folder(tmp_path: Path, url: str) -> None:
    folder = tmp_path / "agents"
    folder.mkdir()
    (folder / "team.py").write_text(
        "from actorbus import Agent, handles\n"
        "class Doubler(Agent):\n"
        "    @handles\n"
        "    def double(self, number: int) -> int:\n"
        "        return number * 2\n"
    )
    (folder / "wrong.py").write_text("import nothing_like_this\n")
    with Node(audit=url, settings=None) as node:
        node.load(folder / "team.py")
        node.ask("doubler", 4).get()

    outcome = Replay(Audit(url), Audit(url).messages()[0].id, load=folder).run()

    assert outcome.same, outcome.divergence
    assert [broken.path for broken in outcome.broken] == [str(folder / "wrong.py")]


def test_it_goes_step_by_step(recorded: Recorded) -> None:
    views = recorded(CHAIN, ask("editor", "abc"))
    replay = Replay(views, agents={"editor": Editor})

    first = replay.step()
    rest = list(replay.steps())

    assert first is not None
    assert (first.number, first.said.recipient, first.from_history) == (1, "editor", True)
    assert [step.number for step in rest] == [2, 3, 4]
    assert replay.step() is None
    assert replay.run().same
    assert len(replay.run().steps) == 4


def test_speed_says_how_long_turned_time_really_takes(recorded: Recorded) -> None:
    class Timed(Agent):
        @handles
        def work(self, number: int) -> None:
            pass

    def drive(node: Node) -> None:
        node.tell("timed", 1)
        node.mailbox("clock").take(1, 0.2)
        node.tell("timed", 2)

    views = recorded({"timed": Timed}, drive)
    lasted = (views[1].created_at - views[0].created_at).total_seconds()
    slept: list[float] = []

    Replay(views, agents={"timed": Timed}, speed=4, sleep=slept.append).run()

    until_second = slept[0]
    assert until_second == pytest.approx(lasted / 4, rel=0.01)


def test_nothing_reaches_the_live_node(recorded: Recorded) -> None:
    views = recorded(CHAIN, ask("editor", "abc"))
    heard: list[Any] = []

    class Witness(Agent):
        @handles
        def note(self, anything: object) -> None:
            heard.append(anything)

    with Node() as live:
        for name in CHAIN:
            live.spawn(Witness, name=name)
        outcome = Replay(views, agents=CHAIN).run()
        live.drain(5)

        assert outcome.same
        assert heard == []
        assert len(live.history) == 0


def test_it_needs_no_network(recorded: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        pytest.fail("a replay is offline")

    team = {"editor": AsyncEditor, "rules": rules}
    views = recorded(team, ask("editor", "abc"))
    for reach in ("bind", "connect", "connect_ex", "listen", "sendto"):
        monkeypatch.setattr(socket.socket, reach, refuse)

    outcome = Replay(views, agents=team).run()

    assert outcome.same, outcome.divergence


def test_it_leaves_no_thread_behind(recorded: Recorded) -> None:
    views = recorded(CHAIN, ask("editor", "abc"))
    before = set(threading.enumerate())

    Replay(views, agents=CHAIN).run()

    assert set(threading.enumerate()) <= before


def test_a_replay_writes_nothing(recorded: Recorded, url: str) -> None:
    views = recorded(CHAIN, ask("editor", "abc"))
    before = Audit(url).counts()

    Replay(views, agents=CHAIN).run()

    assert Audit(url).counts() == before


def test_handlers_can_see_what_they_repeat(recorded: Recorded) -> None:
    class Curious(Agent):
        @handles
        def look(self, _: str) -> None:
            seen.append(self.message.headers.get("replay_of"))

    seen: list[str | None] = []
    views = recorded({"curious": Curious}, lambda node: node.tell("curious", "go"))

    Replay(views, agents={"curious": Curious}).run()

    from actorbus import format_id

    assert seen == [None, format_id(views[0].id)]


def test_the_same_replay_may_run_twice_and_inside_a_handler(recorded: Recorded) -> None:
    views = recorded(CHAIN, ask("editor", "abc"))

    class Nested(Agent):
        @handles
        def replay(self, _: str) -> bool:
            return Replay(views, agents=CHAIN).run().same

    with Node() as node:
        assert node.spawn(Nested).ask("go").get() is True


def test_on_a_running_loop_it_says_what_to_write_instead(recorded: Recorded) -> None:
    views = recorded(CHAIN, ask("editor", "abc"))

    async def run() -> None:
        with pytest.raises(NotReplayable, match="to_thread"):
            Replay(views, agents=CHAIN).run()
        assert (await asyncio.to_thread(Replay(views, agents=CHAIN).run)).same

    asyncio.run(run())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "who is to run"),
        ({"agents": {"stranger": Worker}}, "nobody of this conversation is here"),
        ({"agents": CHAIN, "speed": 0}, "speed is 0"),
        ({"agents": CHAIN, "speed": float("nan")}, "speed is nan"),
    ],
)
def test_what_cannot_be_meant_is_said(
    recorded: Recorded, arguments: dict[str, Any], says: str
) -> None:
    views = recorded(CHAIN, ask("editor", "abc"))

    with pytest.raises(NotReplayable, match=says):
        Replay(views, **arguments).run()


def test_no_messages_and_no_agents_are_refused(recorded: Recorded, url: str) -> None:
    views = recorded(CHAIN, ask("editor", "abc"))

    with pytest.raises(NotReplayable, match="no message"):
        Replay([], agents=CHAIN)
    with pytest.raises(NotReplayable, match="which conversation"):
        Replay(Audit(url), agents=CHAIN)
    with pytest.raises(InvalidHandler):
        Replay(views, agents={"editor": 5})


def test_importing_actorbus_does_not_import_replay() -> None:
    program = "import sys, actorbus; sys.exit('actorbus.replay' in sys.modules)"

    ran = subprocess.run([sys.executable, "-c", program], timeout=30, check=False)

    assert ran.returncode == 0
