"""Every knob: its default, its environment variable (``ACTORBUS_`` and the name), its meaning."""

from __future__ import annotations

import os
import re
from typing import Any, Final, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from actorbus.errors import InvalidSettings, did_you_mean

_PREFIX: Final = "ACTORBUS_"
_NOT_SETTINGS: Final = frozenset({"ACTORBUS_AUDIT", "ACTORBUS_BUS"})
"""Variables that belong to the command line, not to a node."""
_KEY: Final = re.compile(
    r"-----|\n|\A\s*MC4CAQAw|\A\s*(?:[0-9a-fA-F]{64}|[A-Za-z0-9+/_-]{43}=?)\s*\Z"
)
"""PEM, the same without its frame, and 32 bytes in hexadecimal or base64."""
NAME_A_FILE: Final = "that looks like a key itself; name the file that holds it"


class Settings(BaseSettings):
    """The settings of a node. Times are in seconds, sizes in bytes.

    Arguments win over environment variables, those over defaults.

    Raises:
        InvalidSettings: a value or a name that cannot be meant.
    """

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="forbid", frozen=True)

    ask_timeout: float = Field(30.0, gt=0, description="How long an ask waits for its reply.")
    send_timeout: float = Field(
        30.0, ge=0, description="How long a send waits for room in a full mailbox."
    )
    drain_timeout: float = Field(
        30.0, ge=0, description="How long leaving a node waits for the work under way."
    )
    stop_timeout: float = Field(
        10.0, ge=0, description="How long stopping waits for handlers to return."
    )
    pool_threads: int = Field(256, ge=1, description="The most threads the pool may have.")
    pool_core: int = Field(2, ge=1, description="Threads the pool keeps however idle it is.")
    pool_grow_after: float = Field(
        0.010, gt=0, description="All threads held this long while agents wait: the pool doubles."
    )
    pool_shrink_after: float = Field(10.0, gt=0, description="An idle extra thread ends after.")
    turn_messages: int = Field(32, ge=1, description="Messages an agent handles in one turn.")
    turn_seconds: float = Field(0.005, gt=0, description="And the time a turn may take.")
    slow_handler: float = Field(1.0, gt=0, description="A handler that takes longer is reported.")
    payload_limit: int = Field(1 << 20, ge=1, description="The largest payload, encoded.")
    check_payloads: bool = Field(
        False, description="Hold in-memory payloads to the limit and the codec too."
    )
    history_size: int = Field(10_000, ge=0, description="Endings the history ring keeps.")
    history_payloads: bool = Field(False, description="Whether the ring keeps payloads too.")
    dead_letter_capacity: int = Field(10_000, ge=1, description="Dead letters that are kept.")
    delayed_capacity: int = Field(100_000, ge=1, description="Delayed messages that may wait.")
    beat: float = Field(2.0, gt=0, description="A node's heartbeat.")
    suspect_after: float = Field(5.0, gt=0, description="A silent node is suspect after.")
    dead_after: float = Field(10.0, gt=0, description="And dead after.")
    start_together: float = Field(
        1.0,
        ge=0,
        description="Within which `actorbus node` waits for others, to share what all load.",
    )
    namespace: str = Field(
        "actorbus", description="Nodes on one server see each other if they share it."
    )
    context_history: int = Field(100, ge=1, description="Versions kept of a context key.")
    context_log: int = Field(10_000, ge=1, description="Commits kept of a namespace.")
    watch_backlog: int = Field(
        10_000, ge=1, description="Changes a watcher may be behind before it is told it lagged."
    )
    tenant: str = Field("default", description="The tenant this node's history belongs to.")
    project: str = Field("default", description="The project this node's history belongs to.")
    audit_ring: int = Field(100_000, ge=1, description="Records that may wait to be written.")
    audit_ring_bytes: int = Field(
        64 << 20, ge=1, description="And the bytes they may take, as JSON, by a sample of them."
    )
    audit_spill_bytes: int = Field(
        1 << 30, ge=0, description="Bytes of records that may wait on disk; 0: none may."
    )
    audit_spill_dir: str | None = Field(
        None, description="Where they wait; by default beside a history in an SQLite file."
    )
    audit_batch: int = Field(500, ge=1, description="Records written in one transaction.")
    audit_interval: float = Field(0.05, gt=0, description="The longest a record waits for others.")
    audit_mask: str | None = Field(
        None, description="What is masked before it is written, with commas between; or all."
    )
    audit_anchors: str | None = Field(
        None, description="The file that anchors go to; by default beside the history's. Or off."
    )
    audit_signing_key: str | None = Field(
        None, repr=False, description="The PEM file with the key that signs anchors, never the key."
    )

    signing_key: str | None = Field(
        None, repr=False, description="The PEM file with the key that signs what the node sends."
    )
    trusted_keys: str | None = Field(
        None,
        description="Public keys of nodes, a file or a folder; what none of them signed is"
        " refused.",
    )
    replay_window: float = Field(
        86_400.0, gt=0, description="A signed message older than this is refused."
    )

    redis_username: str | None = Field(
        None, description="The ACL user of the Redis servers, where the bus's URL names none."
    )
    redis_password: SecretStr | None = Field(
        None, description="And the password, where the URL has none."
    )
    redis_sentinel_username: str | None = Field(None, description="The ACL user of the sentinels.")
    redis_sentinel_password: SecretStr | None = Field(None, description="And the password.")
    redis_ca: str | None = Field(
        None, description="The PEM file of who signs the servers' certificates; else the system's."
    )
    redis_cert: str | None = Field(None, description="The PEM file of the client certificate.")
    redis_key: str | None = Field(None, description="And of its key, if that is in another file.")
    redis_check_hostname: bool = Field(
        True, description="Whether a server's certificate must be for the host of the URL."
    )

    log_level: Literal["debug", "info", "warning", "error", "off"] = Field(
        "warning", description="The least of what a node writes on stderr."
    )
    log_format: Literal["auto", "json", "pretty"] = Field(
        "auto", description="Lines for people or JSON; auto: for people on a terminal."
    )

    def __init__(self, **values: Any) -> None:
        _check_environment(type(self))
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InvalidSettings(_sentence(error, type(self))) from None

    def model_post_init(self, context: object) -> None:
        if not self.beat < self.suspect_after < self.dead_after:
            raise InvalidSettings(
                f"beat ({self.beat}) < suspect_after ({self.suspect_after})"
                f" < dead_after ({self.dead_after}) must hold, or live nodes look dead"
            )
        for name in ("audit_signing_key", "signing_key", "redis_key"):
            if is_key(getattr(self, name) or ""):
                raise InvalidSettings(f"{name}: {NAME_A_FILE}")


def is_key(text: str) -> bool:
    """Whether this may be an Ed25519 private key, where the path of its file was wanted."""
    return _KEY.search(text) is not None


def _check_environment(cls: type[Settings]) -> None:
    known = {f"{_PREFIX}{name.upper()}" for name in cls.model_fields} | _NOT_SETTINGS
    for name in os.environ:
        if name.upper().startswith(_PREFIX) and name.upper() not in known:
            raise InvalidSettings(
                f"the environment variable {name} is no setting.{did_you_mean(name, known)}"
            )


def _sentence(error: ValidationError, cls: type[Settings]) -> str:
    parts = []
    for problem in error.errors(include_input=False, include_url=False):
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            parts.append(f"no setting {name!r}.{did_you_mean(name, cls.model_fields)}")
        else:
            parts.append(f"{name}: {problem['msg']}")
    return "; ".join(parts)
