"""What stands above a diagram: which conversation it is, how much of it, and when it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from actorbus.message import format_id
from actorbus.persistence.drawing.wording import counted, duration

if TYPE_CHECKING:
    from actorbus.persistence.drawing.sequence import Diagram


def title(diagram: Diagram) -> str:
    if not diagram.arrows:
        return "Conversation without messages"
    return f"Conversation {format_id(diagram.arrows[0].view.correlation_id)}"


def summary(diagram: Diagram) -> str:
    """How many messages and agents, when, and how many went wrong."""
    agents = sum(name is not None for name in diagram.lanes)
    said = [counted(len(diagram.arrows), "message"), counted(agents, "agent")]
    if diagram.arrows:
        views = [arrow.view for arrow in diagram.arrows]
        start = views[0].created_at
        last = max(view.ended_at or view.created_at for view in views)
        said.append(
            f"from {start:%Y-%m-%d %H:%M:%S} UTC for {duration((last - start).total_seconds())}"
        )
        if wrong := sum(arrow.wrong for arrow in diagram.arrows):
            said.append(f"{wrong:,} failed or dead")
    return ", ".join(said)
