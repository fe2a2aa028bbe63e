"""``actorbus audit retain``."""

from __future__ import annotations

from typing import Annotated

import typer

from actorbus.cli.audit.common import AsJson, Tenant, Url, console, print_json
from actorbus.cli.audit.proof import Anchors, SigningKey, Who, Why, done, proven, whoever

_DAY = 86_400.0
_MIB = 1 << 20


def retain(
    why: Why,
    days: Annotated[float | None, typer.Option(help="Keep what is younger.")] = None,
    messages: Annotated[int | None, typer.Option(help="Keep so many, the newest.")] = None,
    mib: Annotated[float | None, typer.Option(help="Keep about so many MiB.")] = None,
    audit: Url = None,
    tenant: Tenant = "default",
    by: Who = None,
    anchors: Anchors = None,
    signing_key: SigningKey = None,
    as_json: AsJson = False,
) -> None:
    """Delete the oldest history. What stays still verifies; what is on hold stays."""
    from actorbus.persistence.retention import Limits

    def delete() -> list[dict[str, object]]:
        limits = Limits(
            age=None if days is None else days * _DAY,
            messages=messages,
            size=None if mib is None else int(mib * _MIB),
        )
        history = proven(audit, tenant, anchors=anchors, signing_key=signing_key)
        return [
            {"chain": one.chain, "rows": one.rows, "through": one.through, "held": one.held}
            for one in history.retain(limits, actor=whoever(by), reason=why)
        ]

    deleted = done(delete)
    if as_json:
        print_json(deleted)
        return
    rows = sum(int(str(one["rows"])) for one in deleted)
    console().print(f"{rows:,} rows deleted.")
    if any(one["held"] for one in deleted):
        console().print("A legal hold kept more: actorbus audit hold lists them.")
