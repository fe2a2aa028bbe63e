"""redis_ask: see ``benchmarks.redis.asking``."""

from __future__ import annotations

from benchmarks.redis.asking import workload

WORKLOAD = workload("redis_ask", outstanding=1)
