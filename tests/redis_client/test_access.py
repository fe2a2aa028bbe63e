"""TLS, and users with passwords and few rights, at a real server."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr
from redis import Redis
from typer.testing import CliRunner

from actorbus import Node, agent
from actorbus.cli import app
from actorbus.errors import TransportUnavailable
from actorbus.redis_client import Access, RedisServer, Script, run_all
from actorbus.redis_client.words import CLUSTER_RIGHTS, RIGHTS
from tests.conftest import free_ports
from tests.redis_client.tls_proxy import Authority, TlsProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import RedisProcess

ALL: Any = {"keys": ["*"], "channels": ["*"], "categories": ["+@all"]}
SECRET = "s3cret@/:?#"


@agent
def shout(text: str) -> str:
    return text.upper()


class Wrapped:
    """A server behind TLS, with an authority that signed its certificate."""

    def __init__(self, process: RedisProcess, folder: Path) -> None:
        self.process = process
        self.authority = Authority(folder)
        self.ca = str(self.authority.file)
        self._open: list[TlsProxy] = []

    def port(self, *hosts: str, clients: Path | None = None, port: int = 0) -> int:
        """Where TLS is spoken with a certificate for `hosts`."""
        certificate = self.authority.certificate("server", *hosts)
        proxy = TlsProxy(
            self.process.url.removeprefix("unix://"), certificate, clients=clients, port=port
        )
        self._open.append(proxy)
        return proxy.port

    def close(self) -> None:
        for proxy in self._open:
            proxy.close()


@pytest.fixture
def process(start_redis: Callable[..., RedisProcess]) -> RedisProcess:
    return start_redis()


@pytest.fixture
def wrapped(process: RedisProcess, tmp_path: Path) -> Iterator[Wrapped]:
    wrapped = Wrapped(process, tmp_path)
    yield wrapped
    wrapped.close()


def said(url: str, access: Access | None = None) -> str:
    """What `url` says to a ping: an error's words, or nothing."""
    server = RedisServer(url, access=access)
    try:
        with server.errors():
            server.client.ping()
    except TransportUnavailable as error:
        return str(error)
    finally:
        server.close()
    return ""


class TestTls:
    def test_a_server_that_our_authority_signed_is_trusted(self, wrapped: Wrapped) -> None:
        port = wrapped.port("localhost", "127.0.0.1")

        assert said(f"rediss://localhost:{port}", Access(ca=wrapped.ca)) == ""
        assert said(f"rediss://127.0.0.1:{port}", Access(ca=wrapped.ca)) == ""

    def test_one_of_an_unknown_authority_is_refused(self, wrapped: Wrapped, tmp_path: Path) -> None:
        port = wrapped.port("localhost")
        stranger = Authority(tmp_path, "stranger")

        for access in (Access(), Access(ca=str(stranger.file))):
            assert "signed by nobody known here: name the file" in said(
                f"rediss://localhost:{port}", access
            )

    def test_one_for_another_host_is_refused_unless_that_is_not_checked(
        self, wrapped: Wrapped
    ) -> None:
        url = f"rediss://localhost:{wrapped.port('elsewhere.example')}"

        assert "for another host name" in said(url, Access(ca=wrapped.ca))
        assert said(url, Access(ca=wrapped.ca, check_hostname=False)) == ""

    def test_a_server_may_want_to_know_who_we_are(self, wrapped: Wrapped) -> None:
        port = wrapped.port("localhost", clients=wrapped.authority.file)
        cert, key = map(str, wrapped.authority.certificate("client"))
        url = f"rediss://localhost:{port}"

        assert "does not take our certificate, or wants one" in said(url, Access(ca=wrapped.ca))
        assert said(url, Access(ca=wrapped.ca, cert=cert, key=key)) == ""

    def test_a_server_without_tls_is_said(
        self, start_redis: Callable[..., RedisProcess], free_port: int
    ) -> None:
        start_redis(port=free_port)

        assert "where it speaks no TLS, the scheme begins with redis" in said(
            f"rediss://127.0.0.1:{free_port}"
        )

    def test_a_server_with_tls_is_said_to_who_speaks_none(self, wrapped: Wrapped) -> None:
        port = wrapped.port("localhost")

        assert "the scheme begins with rediss" in said(f"redis://localhost:{port}")

    def test_a_file_that_is_no_certificate_is_said(self, wrapped: Wrapped, tmp_path: Path) -> None:
        (tmp_path / "empty.pem").touch()
        access = Access(ca=str(tmp_path / "empty.pem"))

        assert "ACTORBUS_REDIS_CA" in said(
            f"rediss://localhost:{wrapped.port('localhost')}", access
        )

    def test_it_also_carries_pub_sub(self, wrapped: Wrapped) -> None:
        server = RedisServer(
            f"rediss://localhost:{wrapped.port('localhost')}", access=Access(ca=wrapped.ca)
        )
        client: Any = server.subscriber()
        ear = client.pubsub(ignore_subscribe_messages=True)
        ear.subscribe("bell")
        ear.get_message(timeout=5.0)

        server.client.publish("bell", "ding")

        heard = ear.get_message(timeout=5.0)
        assert heard["data"] == b"ding"
        ear.close()
        client.close()
        server.close()


def test_a_cluster_is_spoken_to_over_tls_as_a_user(
    start_redis: Callable[..., RedisProcess], tmp_path: Path
) -> None:
    inner, port = free_ports(2)
    announced = ("--cluster-announce-ip", "127.0.0.1", "--cluster-announce-port", str(port))
    process = start_redis("--cluster-enabled", "yes", *announced, port=inner)
    wrapped = Wrapped(process, tmp_path)
    wrapped.port("127.0.0.1", port=port)
    with Redis.from_url(process.url, protocol=2) as client:
        client.execute_command("CLUSTER ADDSLOTS", *range(16_384))
        _wait_for(lambda: client.cluster("info")["cluster_state"] == "ok")
        client.acl_setuser("ann", enabled=True, passwords=[f"+{SECRET}"], **ALL)
        client.acl_setuser("default", enabled=True, reset_passwords=True, passwords=["+other"])
    access = Access(ca=wrapped.ca, username="ann", password=SecretStr(SECRET))
    server = RedisServer(f"rediss+cluster://127.0.0.1:{port}", access=access)

    found = run_all(server.client, [(Script("return ARGV[1]"), ["k"], ["v"])] * 3)

    assert found == [b"v"] * 3
    assert server.client.acl_whoami() == "ann"
    one: Any = server.publisher()
    assert one.acl_whoami() == "ann"
    one.close()
    assert "the user or the password is wrong" in said(
        f"rediss+cluster://ann:no@127.0.0.1:{port}", Access(ca=wrapped.ca)
    )
    server.close()
    wrapped.close()


def _wait_for(holds: Callable[[], bool]) -> None:
    for _ in range(500):
        if holds():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never held")


class TestUsers:
    @pytest.fixture
    def url(self, process: RedisProcess) -> str:
        """Of a server where ann may read and write under ``{ours``, and nobody else anything."""
        with Redis.from_url(process.url) as client:
            client.acl_setuser(
                "ann", enabled=True, passwords=[f"+{SECRET}"], keys=["{ours*"], categories=["+@all"]
            )
            client.acl_setuser("default", enabled=True, reset_passwords=True, passwords=["+other"])
        return process.url

    def test_the_rights_that_an_error_names_are_enough_for_nodes(
        self, process: RedisProcess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Redis.from_url(process.url) as client:
            rights = [*RIGHTS.split(), *CLUSTER_RIGHTS.split()]
            client.execute_command("ACL SETUSER", "ann", "on", f">{SECRET}", *rights)
        monkeypatch.setenv("ACTORBUS_REDIS_USERNAME", "ann")
        monkeypatch.setenv("ACTORBUS_REDIS_PASSWORD", SECRET)

        with Node(process.url, name="one") as one, Node(process.url, name="two") as two:
            shouter = one.spawn(shout, name="shout")
            shouter.subscribe("news.>")
            one.context.set("k", 1)
            answer = two.ask("shout", "a").get()
            two.topic("news.eu").publish("b")
            seen = two.context.get("k")
            checked = CliRunner().invoke(app, ["doctor", "--bus", process.url])

        assert (answer, seen) == ("A", 1)
        assert checked.exit_code == 0, checked.output
        with Redis.from_url(process.url) as client:
            assert client.acl_log() == []

    def test_every_version_knows_the_commands_that_the_rights_name(
        self, process: RedisProcess
    ) -> None:
        """6.2 takes whatever is named as a subcommand, and 7.0 none that it does not have."""
        named = re.findall(r"\+(\w+)\|(\w+)", RIGHTS)

        with Redis.from_url(process.url) as client:
            helped = {name: str(client.execute_command(name, "HELP")) for name, _ in named}

        assert named
        assert [(name, word) for name, word in named if word.upper() not in helped[name]] == []

    def test_one_with_the_right_password_comes_in(self, url: str) -> None:
        assert said(url, Access(username="ann", password=SecretStr(SECRET))) == ""
        assert said(url.replace("://", "://ann:s3cret%40%2F%3A%3F%23@")) == ""

    def test_a_wrong_password_is_said_and_not_shown(self, url: str) -> None:
        for text in (
            said(url, Access(username="ann", password=SecretStr("wr0ng"))),
            said(url.replace("://", "://ann:wr0ng@")),
        ):
            assert "the user or the password is wrong" in text
            assert "wr0ng" not in text

    def test_a_wrong_password_is_tried_once(self, url: str, process: RedisProcess) -> None:
        said(url, Access(username="ann", password=SecretStr("wr0ng")))

        with Redis.from_url(process.url.replace("://", "://:other@")) as client:
            log: Any = client.acl_log()
        assert [one["count"] for one in log if one["reason"] == "auth"] == [1]

    def test_a_missing_one_is_said(self, url: str) -> None:
        text = said(url)

        assert "ACTORBUS_REDIS_USERNAME and ACTORBUS_REDIS_PASSWORD" in text

    def test_one_that_is_not_wanted_is_said(self, process: RedisProcess) -> None:
        text = said(process.url, Access(password=SecretStr(SECRET)))

        assert "has no password" in text
        assert SECRET not in text

    @pytest.mark.parametrize(
        "script",
        [Script("return 1"), Script("return redis.call('GET', '{theirs')")],
        ids=["another's key", "another's key inside a script"],
    )
    def test_what_a_user_may_not_do_is_said_with_how_to_allow_it(
        self, url: str, script: Script
    ) -> None:
        server = RedisServer(url, access=Access(username="ann", password=SecretStr(SECRET)))
        key = "{theirs" if script.text == "return 1" else "{ours"

        with pytest.raises(TransportUnavailable, match="ACL SETUSER") as raised, server.errors():
            script(server.client, [key], [])

        assert SECRET not in str(raised.value)
        server.close()
