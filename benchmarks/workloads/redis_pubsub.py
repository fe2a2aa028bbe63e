"""redis_pubsub: see ``benchmarks.redis.fan_out``."""

from __future__ import annotations

from benchmarks.redis.fan_out import live

WORKLOAD = live("redis_pubsub", subscribers=10)
