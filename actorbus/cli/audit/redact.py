"""``actorbus audit redact``."""

from __future__ import annotations

from actorbus.cli.audit.command import command
from actorbus.cli.audit.common import AsJson, Id, print_change
from actorbus.cli.audit.proof import Changed, Who, Why, whoever


@command
def redact(id: Id, why: Why, history: Changed, by: Who = None, as_json: AsJson = False) -> None:
    """Take away for good what a message said: its payload, its headers and the errors that may
    quote it. Their digests stay as the proof.
    """
    changed = history.redact(id, actor=whoever(by), reason=why)
    said = "Redacted." if changed else "It was redacted before."
    print_change(changed, said, as_json=as_json)
