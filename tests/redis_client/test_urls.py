from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr

from actorbus.errors import InvalidSettings, InvalidUrl, UnknownTransport
from actorbus.redis_client import Access, Kind, RedisServer, parsed
from actorbus.redis_client.urls import address
from actorbus.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


class TestBusUrls:
    @pytest.mark.parametrize(
        ("url", "transport", "server"),
        [
            ("redis://h:1/0", "durable", "redis://h:1/0"),
            ("redis+pubsub://h:1/0", "pubsub", "redis://h:1/0"),
            ("rediss+pubsub://u:p@h", "pubsub", "rediss://u:p@h"),
            ("unix+pubsub:///run/r.sock", "pubsub", "unix:///run/r.sock"),
            ("REDIS+PubSub://h", "pubsub", "redis://h"),
            ("rediss+cluster://a,b:2", "durable", "rediss+cluster://a,b:2"),
            ("redis+sentinel+pubsub://a/s", "pubsub", "redis+sentinel://a/s"),
        ],
    )
    def test_one_names_a_transport_and_a_server(
        self, url: str, transport: str, server: str
    ) -> None:
        assert parsed(url) == (transport, server)

    @pytest.mark.parametrize(
        "url", ["", "redis", "memory://", "http://h", "redis+cluster+pubsub://h"]
    )
    def test_another_is_refused_with_those_that_are_known(self, url: str) -> None:
        with pytest.raises(UnknownTransport, match=r"redis\+pubsub://.*redis\+sentinel://"):
            parsed(url)


class TestAddresses:
    def test_a_service_has_sentinels_a_name_and_a_database(self) -> None:
        found = address("rediss+sentinel://ann:pw@s1,[::1]:7,s3:9/main%20one/2")

        assert (found.kind, found.tls, found.service) == (Kind.SENTINEL, True, "main one")
        assert found.hosts == (("s1", 26379), ("::1", 7), ("s3", 9))
        assert found.url == "rediss://ann:pw@s1:26379/2"

    def test_a_cluster_has_servers(self) -> None:
        found = address("redis+cluster://h1:7000,h2")

        assert (found.kind, found.tls) == (Kind.CLUSTER, False)
        assert found.hosts == (("h1", 7000), ("h2", 6379))

    @pytest.mark.parametrize(
        ("url", "says"),
        [
            ("redis+sentinel://h1,h2", "names no service; such as"),
            ("redis+sentinel://h1,h2/", "names no service; such as"),
            ("redis+sentinel://h1/main/zero", "the database is a number"),
            ("redis+sentinel:///main", "names no host"),
            ("redis+cluster://h1,:7", "names no host"),
            ("redis+cluster://h1:7x", "or a port that is none"),
            ("redis+cluster://h1/3", "a cluster has no database but 0"),
            ("redis://h1:1,h2:2", r"with several hosts redis\+sentinel://.* or redis\+cluster://"),
            ("unix://run/r.sock", "such as unix:///run/redis.sock"),
            ("redis://h?db=x", "no option of redis-py's"),
            ("redis://h?colour=red", "no option of redis-py's.*colour"),
            ("redis+cluster://h?colour=red", "no option of redis-py's.*colour"),
        ],
    )
    def test_one_that_cannot_be_meant_says_what_can(self, url: str, says: str) -> None:
        with pytest.raises(InvalidUrl, match=says):
            RedisServer(url)

    @pytest.mark.parametrize(
        "url",
        [
            "redis://ann:se/cret@h",
            "redis://:12/se/cret@h/0",
            "redis://ann:se?cret@h",
            "redis://ann:se#cret@h",
            "unix://ann:se/cret@/run/r.sock",
            "redis+cluster://ann:se/cret@h1,h2",
            "redis+sentinel://ann:1/cret@h1/s",
        ],
    )
    def test_a_password_that_cuts_its_url_short_is_said_and_not_shown(self, url: str) -> None:
        with pytest.raises(InvalidUrl) as raised:
            RedisServer(url)

        assert "cret" not in str(raised.value)
        assert "%2F" in str(raised.value)

    @pytest.mark.parametrize(
        "url",
        [
            "redis+sentinel://ann:s%40cret@h1:1,h2:2/main/0",
            "rediss+cluster://ann:s%40cret@h1:1,h2:2",
            "redis+cluster://h1:1,h2:2?password=s%40cret",
        ],
    )
    def test_people_see_the_hosts_and_no_password(self, url: str) -> None:
        server = RedisServer(url)

        assert "cret" not in server.shown + repr(server) + repr(address(url))
        assert "h1:1,h2:2" in server.shown


class TestAccess:
    def test_it_is_set_by_the_environment_and_never_printed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ACTORBUS_REDIS_USERNAME", "ann")
        monkeypatch.setenv("ACTORBUS_REDIS_PASSWORD", "s3cret")

        settings = Settings()
        access = Access.of(settings)

        assert access.options() == {"username": "ann", "password": "s3cret"}
        assert "s3cret" not in f"{settings!r} {settings} {access!r} {settings.model_dump_json()}"

    def test_what_the_url_says_wins(self) -> None:
        access = Access(username="bob", password=SecretStr("other"))
        server = RedisServer("redis://ann:mine@h", access=access)

        said = server.client.connection_pool.connection_kwargs

        assert (said["username"], said["password"]) == ("ann", "mine")

    def test_the_url_may_name_the_user_and_the_setting_the_password(self) -> None:
        server = RedisServer("redis://ann@h", access=Access(password=SecretStr("mine")))

        said = server.client.connection_pool.connection_kwargs

        assert (said["username"], said["password"]) == ("ann", "mine")

    def test_host_names_are_checked_unless_one_says_not_to(self, tmp_path: Path) -> None:
        (tmp_path / "ca.pem").touch()
        ca = str(tmp_path / "ca.pem")

        usual = RedisServer("rediss://h", access=Access(ca=ca))
        lax = RedisServer("rediss://h", access=Access(check_hostname=False))

        assert usual.client.connection_pool.connection_kwargs["ssl_check_hostname"] is True
        assert usual.client.connection_pool.connection_kwargs["ssl_ca_certs"] == ca
        assert lax.client.connection_pool.connection_kwargs["ssl_check_hostname"] is False

    @pytest.mark.parametrize(
        ("url", "access", "says"),
        [
            ("redis://h", {"ca": "ca.pem"}, "is without TLS, but redis_ca is set"),
            ("rediss://h", {"ca": "no/ca.pem"}, "redis_ca names no/ca.pem, and there is no file"),
            ("rediss://h", {"key": "-----BEGIN KEY"}, "looks like a key itself"),
        ],
    )
    def test_files_that_cannot_be_meant_are_said(
        self, url: str, access: dict[str, Any], says: str
    ) -> None:
        with pytest.raises(InvalidUrl, match=says):
            RedisServer(url, access=Access(**access))

    def test_a_key_where_its_file_is_wanted_is_not_printed(self) -> None:
        with pytest.raises(InvalidSettings) as raised:
            Settings(redis_key="-----BEGIN PRIVATE KEY-----\nabc")

        assert "abc" not in str(raised.value)
