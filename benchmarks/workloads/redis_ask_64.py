"""redis_ask_64: see ``benchmarks.redis.asking``."""

from __future__ import annotations

from benchmarks.redis.asking import workload

WORKLOAD = workload("redis_ask_64", outstanding=64)
