"""Effects on every message, one a file. Each says on which side it belongs.

::

    Node(middleware=[
        Send(trace(), authorise({"scout": ["librarian"]})),
        Deliver(deduplicate("idempotency-key"), rate_limit(100, by="recipient")),
    ])

A middleware remembers what it needs for one place on one node: call the factory again for
another. What another node or a pulled mailbox takes does not come through the deliver side.
"""

from actorbus.bus.middlewares.authorise import authorise
from actorbus.bus.middlewares.deduplicate import deduplicate
from actorbus.bus.middlewares.rate_limit import rate_limit
from actorbus.bus.middlewares.rules import Rule, Rules
from actorbus.bus.middlewares.trace import trace

__all__ = ["Rule", "Rules", "authorise", "deduplicate", "rate_limit", "trace"]
