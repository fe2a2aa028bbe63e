"""redis_topic_1000: see ``benchmarks.redis.fan_out``."""

from __future__ import annotations

from benchmarks.redis.fan_out import kept

WORKLOAD = kept("redis_topic_1000", subscribers=1_000)
