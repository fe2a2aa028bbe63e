"""redis_topic: see ``benchmarks.redis.fan_out``."""

from __future__ import annotations

from benchmarks.redis.fan_out import kept

WORKLOAD = kept("redis_topic", subscribers=10)
