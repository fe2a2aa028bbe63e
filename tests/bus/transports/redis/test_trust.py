"""Nodes that sign what they send, on a real server: what nobody trusted vouches for is refused."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID, uuid4

import pytest

from actorbus import Agent, AgentFailed, AskTimeout, Node, Rejected, handles
from actorbus.bus.transports.redis.letters import pack_message
from actorbus.bus.transports.redis.loads import Outgoing, Taken
from actorbus.bus.transports.redis.log import InboxLog
from actorbus.bus.transports.redis.ownership import Terms
from actorbus.codec import Codec, TypeBook
from actorbus.codec.signing import make_keys
from actorbus.codec.signing.sealing import read_seal
from actorbus.message import MessageKind
from actorbus.redis_client import RedisServer
from actorbus.settings import Settings
from actorbus.telemetry import Event, TransportTrouble
from tests.hearing import hears_itself
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from actorbus.bus.transports.redis.items import Item

DEADLINE = 10.0


class Echo(Agent):
    heard: ClassVar[list[str]] = []

    @handles
    def echo(self, text: str) -> str:
        if text == "fail":
            raise ValueError("no")
        self.heard.append(text)
        return text


class Deployment:
    """Nodes of one namespace. `here` and `there` trust each other, and nobody else."""

    def __init__(self, url: str, folder: Path) -> None:
        self.namespace = uuid4().hex
        self.nodes: list[Node] = []
        self._url = url
        self._folder = folder
        self._pairs = {name: make_keys(name, folder) for name in ("here", "there", "stranger")}
        self.server = RedisServer(url)
        self.log = InboxLog(self.server, namespace=self.namespace)

    def start(self, name: str, *trusts: str, audit: str | None = None) -> Node:
        """A node that signs if it trusts anybody."""
        keys: dict[str, Any] = {}
        if trusts:
            trusted = self._folder / f"trusted by {name}"
            trusted.write_text("".join(f"{self._pairs[one].line}\n" for one in trusts))
            keys = {"signing_key": str(self._pairs[name].private), "trusted_keys": str(trusted)}
        settings = Settings(namespace=self.namespace, **keys)
        node = Node(self._url, name=name, audit=audit, settings=settings)
        self.nodes.append(node.start())
        return node

    def lying(self, agent: str) -> Item:
        """The one message in the inbox of an agent that nobody runs."""
        owner = self.log.acquire(agent, "whoever", ttl=10.0)
        (item,) = self.log.fetch(owner, owner.cursors).items
        self.log.drop(owner, "taken away")
        return item

    def put(self, agent: str, blob: bytes, message_id: bytes | None = None) -> None:
        one = Outgoing(agent, 1, 2, message_id or uuid4().bytes, blob)
        (sent,) = self.log.send(uuid4().hex, [one])
        assert sent.taken is Taken.OK


@pytest.fixture
def deployment(redis_url: str, tmp_path: Path) -> Iterator[Deployment]:
    Echo.heard.clear()
    deployment = Deployment(redis_url, tmp_path)
    yield deployment
    for node in deployment.nodes:
        node.stop()
    deployment.server.close()


def troubles(node: Node) -> list[BaseException]:
    """What its transport says that it gave up, from now on."""
    told: list[BaseException] = []

    def listen(event: Event) -> None:
        if isinstance(event, TransportTrouble):
            told.append(event.error)

    node.telemetry.listen(listen)
    return told


def refusals(node: Node) -> list[str]:
    """Why messages were refused there, oldest first."""
    return [one.error or "" for one in reversed(node.dead_letters.list(reason="refused"))]


def test_nodes_that_trust_each_other_talk_as_ever(deployment: Deployment) -> None:
    here, there = (deployment.start(name, "here", "there") for name in ("here", "there"))
    there.spawn(Echo, name="echo")

    answer = here.ask("echo", "hello").get(DEADLINE)
    with pytest.raises(AgentFailed, match="no"):
        here.ask("echo", "fail").get(DEADLINE)
    here.ref("echo").tell("later", delay=0.05)

    assert answer == "hello"
    until(lambda: "later" in Echo.heard)
    assert not refusals(there)


def test_the_thread_that_waits_for_a_signed_answer_hears_it_itself(deployment: Deployment) -> None:
    here, there = (deployment.start(name, "here", "there") for name in ("here", "there"))
    there.spawn(Echo, name="echo")

    until(lambda: hears_itself(lambda: here.ask("echo", "hello")))


def test_what_is_not_signed_or_by_nobody_trusted_is_refused_and_recorded(
    deployment: Deployment, tmp_path: Path
) -> None:
    audit = f"sqlite:///{tmp_path / 'history.db'}"
    there = deployment.start("there", "here", "there", audit=audit)
    there.spawn(Echo, name="echo")
    unsigned = deployment.start("unsigned")
    stranger = deployment.start("stranger", "here", "there", "stranger")

    unsigned.tell("echo", "unsigned")
    unsigned.flush(DEADLINE)
    with pytest.raises(Rejected, match="not signed, and here everything must be"):
        unsigned.ask("echo", "hello?").get(DEADLINE)
    stranger.tell("echo", "by a stranger")
    with pytest.raises(AskTimeout):
        stranger.ask("echo", "hello?", timeout=0.5).get()

    until(lambda: len(refusals(there)) == 4)
    assert ["(unsigned)" in why or "(unknown-node)" in why for why in refusals(there)] == [True] * 4
    assert not {"unsigned", "by a stranger", "hello?"} & set(Echo.heard)
    there.stop()
    refused = there.audit.messages(reason="refused")
    assert len(refused) == 4


def test_who_signs_and_is_not_trusted_finds_in_its_log_why_no_answer_comes(
    deployment: Deployment,
) -> None:
    there = deployment.start("there", "here", "there")
    there.spawn(Echo, name="echo")
    stranger = deployment.start("stranger", "here", "there", "stranger")
    told = troubles(stranger)

    with pytest.raises(AskTimeout):
        stranger.ask("echo", "hello?", timeout=1.0).get()

    (error,) = told
    assert isinstance(error, Rejected)
    assert "'stranger' is not trusted here" in str(error)


def test_what_says_that_it_is_an_ask_of_no_possible_node_is_a_letter_and_the_next_is_handled(
    deployment: Deployment,
) -> None:
    here, there = (deployment.start(name, "here", "there") for name in ("here", "there"))
    there.spawn(Echo, name="echo")
    message = there.bus.stamp(MessageKind.REQUEST, "echo", "forged")

    for asker in ("", "x" * 255, "nobody~0"):
        blob = pack_message(Codec(TypeBook(), limit=1_000), message, 0.0, asker)
        seal = b"\xc1\x01" + bytes(64 + 24) + bytes([2, 1, 0]) + b"x"
        deployment.put("echo", blob)
        deployment.put("echo", seal + blob)
    here.tell("echo", "next")

    until(lambda: Echo.heard == ["next"])
    assert len(refusals(there)) == 6


@pytest.mark.parametrize("sealed", [False, True])
def test_a_forged_copy_of_an_ask_does_not_break_it_off(
    deployment: Deployment, sealed: bool
) -> None:
    here, there = (deployment.start(name, "here", "there") for name in ("here", "there"))
    begun, gate = threading.Event(), threading.Event()

    class Holding(Echo):
        @handles
        def echo(self, text: str) -> str:
            begun.set()
            assert gate.wait(DEADLINE)
            return text

    there.spawn(Holding, name="echo")
    there.spawn(Echo, name="decoy")
    told = troubles(here)
    reply = here.ask("echo", "hello")
    assert begun.wait(DEADLINE)
    inbox = f"{deployment.log.tags[0]}:i:echo:2"
    stored: list[Any] = deployment.server.client.lrange(inbox, 0, -1)
    head, blob = stored[0][:30], stored[0][30:]
    forged = blob[:-1] + bytes([blob[-1] ^ 1]) if sealed else read_seal(blob).blob

    deployment.put("decoy", forged, head[14:])
    until(lambda: refusals(there))
    until(lambda: told or refusals(here))
    gate.set()

    assert reply.get(DEADLINE) == "hello"


def test_copies_of_what_is_in_hand_are_letters_and_hold_up_nothing(deployment: Deployment) -> None:
    here, there = (deployment.start(name, "here", "there") for name in ("here", "there"))
    begun, gate = threading.Event(), threading.Event()

    class Holding(Echo):
        @handles
        def echo(self, text: str) -> str:
            begun.set()
            assert gate.wait(DEADLINE)
            return super().echo(text)

    there.spawn(Holding, name="echo")
    here.ref("echo").tell("once")
    assert begun.wait(DEADLINE)
    inbox = f"{deployment.log.tags[0]}:i:echo:2"
    stored: list[Any] = deployment.server.client.lrange(inbox, 0, -1)
    [original] = stored
    copies = [original, original.replace(b"once", b"ONCE")]

    deployment.server.client.rpush(inbox, *copies)
    here.ref("echo").tell("after")
    until(lambda: deployment.log.depth("echo") == 2)
    gate.set()

    until(lambda: Echo.heard == ["once", "after"])
    until(lambda: not deployment.server.client.exists(inbox))
    kept = [(one["reason"], one["error"].split(")")[0]) for one in deployment.log.letters()]
    assert sorted(kept) == [
        ("refused", "not to be trusted (forged"),
        ("refused", "not to be trusted (replayed"),
    ]


def test_a_copy_that_is_refused_is_a_letter_of_its_own_and_the_message_stays_handled(
    deployment: Deployment, tmp_path: Path
) -> None:
    audit = f"sqlite:///{tmp_path / 'history.db'}"
    there = deployment.start("there", "here", "there", audit=audit)
    here = deployment.start("here", "here", "there", audit=audit)
    deployment.log.offer("echo", Terms(10))
    here.tell("echo", "once")
    here.flush(DEADLINE)
    owner = deployment.log.acquire("echo", "whoever", ttl=10.0)
    (caught,) = deployment.log.fetch(owner, owner.cursors).items
    deployment.log.release_many([owner])
    there.spawn(Echo, name="echo")
    until(lambda: Echo.heard == ["once"])

    deployment.put("echo", caught.blob, caught.id)
    until(lambda: refusals(there))

    (letter,) = there.dead_letters.list(reason="refused")
    original = UUID(bytes=caught.id)
    assert letter.id != original.int
    assert letter.message.headers["actorbus-claimed-id"] == str(original)
    here.stop()
    there.stop()
    handled, refused = there.audit.messages(recipient="echo")[::-1]
    assert (handled.id, handled.status) == (original.int, "handled")
    assert (refused.id, refused.status) == (letter.id, "dead")


def test_one_that_is_altered_moved_or_put_there_again_is_refused(deployment: Deployment) -> None:
    here, there = (deployment.start(name, "here", "there") for name in ("here", "there"))
    deployment.log.offer("decoy", Terms(10))
    here.tell("decoy", "for the decoy")
    here.flush(DEADLINE)
    caught = deployment.lying("decoy")
    there.spawn(Echo, name="echo")
    there.spawn(Echo, name="decoy")

    deployment.put("echo", caught.blob, caught.id)
    deployment.put("decoy", caught.blob[:-1] + bytes([caught.blob[-1] ^ 1]))
    deployment.put("decoy", caught.blob, caught.id)
    until(lambda: "for the decoy" in Echo.heard)
    deployment.put("decoy", caught.blob)

    until(lambda: len(refusals(there)) == 3)
    words = [why.partition("(")[2].partition(")")[0] for why in refusals(there)]
    assert sorted(words) == ["forged", "misplaced", "replayed"]
    assert Echo.heard.count("for the decoy") == 1
