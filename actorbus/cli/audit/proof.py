"""What the commands about proof share."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated, Any

import typer

from actorbus.cli import terminal
from actorbus.cli.audit.command import From
from actorbus.cli.audit.common import Tenant, Url, opened
from actorbus.persistence.audit import Audit

Why = Annotated[str, typer.Option("--why", help="The reason, which history keeps.")]
Who = Annotated[
    str | None, typer.Option("--by", help="Who answers for it. Default: the user of this shell.")
]
SigningKey = Annotated[
    Path | None,
    typer.Option(
        "--signing-key",
        envvar="ACTORBUS_AUDIT_SIGNING_KEY",
        help="PEM file with the Ed25519 key that signs the anchor.",
    ),
]
Anchors = Annotated[
    Path | None,
    typer.Option(
        "--anchors",
        envvar="ACTORBUS_AUDIT_ANCHORS",
        help="The anchors. Default: beside the database.",
    ),
]


def proven(
    audit: Url = None, tenant: Tenant = "default", anchors: Anchors = None, **options: Any
) -> Audit:
    """The history that is meant, with its anchors."""
    from actorbus.persistence.anchors import place_of

    return opened(audit, tenant=tenant, anchors=place_of(anchors), **options)


def _read(audit: Url = None, tenant: Tenant = "default", anchors: Anchors = None) -> Audit:
    return proven(audit, tenant, anchors)


def _changed(
    audit: Url = None,
    tenant: Tenant = "default",
    anchors: Anchors = None,
    signing_key: SigningKey = None,
) -> Audit:
    return proven(audit, tenant, anchors, signing_key=signing_key)


Proven = Annotated[Audit, From(_read)]
"""A tenant's history with its anchors, for reading."""
Changed = Annotated[Audit, From(_changed)]
"""A tenant's history with its anchors and the key that signs them, for what changes it."""


def whoever(given: str | None) -> str:
    if given is not None:
        return given
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        terminal.fail("nobody is logged in here: say who does it with --by", 2)
