"""The directory of nodes that share a Redis."""

from actorbus.registry.directories.redis.directory import RedisDirectory

__all__ = ["RedisDirectory"]
