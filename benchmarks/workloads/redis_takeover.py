"""redis_takeover: see ``benchmarks.redis.idle``."""

from __future__ import annotations

from benchmarks.redis.idle import takeover

WORKLOAD = takeover()
