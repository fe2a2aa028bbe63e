"""``actorbus audit redact``."""

from __future__ import annotations

from actorbus.cli.audit.common import Id, Tenant, Url, console
from actorbus.cli.audit.proof import Anchors, SigningKey, Who, Why, done, proven, whoever


def redact(
    id: Id,
    why: Why,
    audit: Url = None,
    tenant: Tenant = "default",
    by: Who = None,
    anchors: Anchors = None,
    signing_key: SigningKey = None,
) -> None:
    """Take away a message's payload and headers for good. Their digests stay as the proof."""
    history = proven(audit, tenant, anchors=anchors, signing_key=signing_key)
    changed = done(lambda: history.redact(id, actor=whoever(by), reason=why))
    console().print("Redacted." if changed else "It was redacted before.")
