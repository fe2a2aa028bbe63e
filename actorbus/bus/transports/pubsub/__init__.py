"""Messages between nodes over plain Redis pub/sub: at most once, live only. See ``transport``."""

from actorbus.bus.transports.pubsub.transport import PUBSUB, PubSubTransport

__all__ = ["PUBSUB", "PubSubTransport"]
