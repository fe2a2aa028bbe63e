"""How fast actorbus is, beside plain baselines: ``python -m benchmarks --help``."""
