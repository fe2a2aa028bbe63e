"""Who we are to a Redis server, and whom we take for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actorbus.errors import InvalidUrl
from actorbus.settings import NAME_A_FILE, is_key

if TYPE_CHECKING:
    from pydantic import SecretStr

    from actorbus.settings import Settings


@dataclass(frozen=True, slots=True)
class Access:
    """Users, passwords and certificates beside the URL, which wins where it says them too.

    The sentinels have users of their own; they are never told those of the servers.
    """

    username: str | None = None
    password: SecretStr | None = None
    sentinel_username: str | None = None
    sentinel_password: SecretStr | None = None
    ca: str | None = None
    """The PEM file with the authorities that are trusted, instead of the system's."""
    cert: str | None = None
    """The PEM file with the client's certificate, and `key` with its key, if not the same."""
    key: str | None = None
    check_hostname: bool = True

    @classmethod
    def of(cls, settings: Settings) -> Access:
        return cls(
            username=settings.redis_username,
            password=settings.redis_password,
            sentinel_username=settings.redis_sentinel_username,
            sentinel_password=settings.redis_sentinel_password,
            ca=settings.redis_ca,
            cert=settings.redis_cert,
            key=settings.redis_key,
            check_hostname=settings.redis_check_hostname,
        )

    def options(self) -> dict[str, Any]:
        """Who we are, for redis-py."""
        return _given(username=self.username, password=_told(self.password))

    def sentinel_options(self) -> dict[str, Any]:
        """Who we are to the sentinels, for redis-py."""
        return _given(username=self.sentinel_username, password=_told(self.sentinel_password))

    def tls_options(self) -> dict[str, Any]:
        """Whom we trust and how we prove ourselves, for redis-py. Never without checking both."""
        return {
            "ssl_check_hostname": self.check_hostname,
            **_given(ssl_ca_certs=self.ca, ssl_certfile=self.cert, ssl_keyfile=self.key),
        }

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no error may quote."""
        both = (self.password, self.sentinel_password)
        return tuple(_told(one) for one in both if one is not None and _told(one))

    def check(self, shown: str, *, tls: bool) -> None:
        """See that the files are there, and are of use.

        Raises:
            InvalidUrl: naming the setting.
        """
        files = _given(redis_ca=self.ca, redis_cert=self.cert, redis_key=self.key)
        for name, file in files.items():
            if not tls:
                raise InvalidUrl(
                    f"{shown} is without TLS, but {name} is set; its scheme with TLS begins"
                    " with rediss"
                )
            if is_key(file):
                raise InvalidUrl(f"{shown}: {name}: {NAME_A_FILE}")
            if not Path(file).is_file():
                raise InvalidUrl(f"{shown}: {name} names {file}, and there is no file")
        if self.key is not None and self.cert is None:
            raise InvalidUrl(f"{shown}: redis_key needs redis_cert, its certificate")


def _told(secret: SecretStr | None) -> Any:
    return None if secret is None else secret.get_secret_value()


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
