"""Shared state in Redis."""

from actorbus.context.stores.redis.store import Fence, RedisStore

__all__ = ["Fence", "RedisStore"]
