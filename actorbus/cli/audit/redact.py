"""``actorbus audit redact``."""

from __future__ import annotations

from actorbus.cli.audit.command import command
from actorbus.cli.audit.common import Id, console
from actorbus.cli.audit.proof import Changed, Who, Why, whoever


@command
def redact(id: Id, why: Why, history: Changed, by: Who = None) -> None:
    """Take away a message's payload and headers for good. Their digests stay as the proof."""
    changed = history.redact(id, actor=whoever(by), reason=why)
    console().print("Redacted." if changed else "It was redacted before.")
