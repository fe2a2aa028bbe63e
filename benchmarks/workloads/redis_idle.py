"""redis_idle: see ``benchmarks.redis.idle``."""

from __future__ import annotations

from benchmarks.redis.idle import agents_at_rest

WORKLOAD = agents_at_rest()
