"""Shared state in namespaces: versioned, watched, and private where it should be."""

from threading import Event
from typing import Any

from actorbus import AccessDenied, Agent, Node, VersionConflict, handles


class Planner(Agent):
    @handles
    def plan(self, step: str) -> None:
        plan = self.context.namespace("plan")
        plan.update("todo", lambda steps: [*steps, step], default=[])
        self.private.increment("steps taken")


with Node() as node:
    plan = node.context.namespace("plan")
    seen = Event()
    planner = node.spawn(Planner, name="planner")

    def look(change: Any) -> None:
        print(f"{change.key} v{change.version} by {change.author}: {change.value}")
        if change.version == 2:
            seen.set()

    plan.watch("todo", look)
    for step in ("research", "write"):
        planner.tell(step)
    seen.wait(timeout=5)

    try:
        plan.compare_and_set("todo", [], version=1)
    except VersionConflict as error:
        print(error)
    try:
        node.context.namespace("agent/planner").get("steps taken")
    except AccessDenied as error:
        print(error)

# Prints:
#   todo v1 by planner: ['research']
#   todo v2 by planner: ['research', 'write']
#   plan:todo is at version 2, not 1; read it again, or let update() do so
#   code outside an agent may not read 'agent/planner': its owner can grant() that
