"""redis_durable_aof: see benchmarks.redis.durable."""

from __future__ import annotations

from benchmarks.redis.durable import workload

WORKLOAD = workload("redis_durable_aof", aof=True)
