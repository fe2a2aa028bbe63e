"""A stored conversation runs again, offline; and what was lost is sent again.

Importing this imports the test kit's node, but no database client.
"""

from actorbus.replay.course import Step
from actorbus.replay.divergence import Difference, Divergence
from actorbus.replay.repair import Repair, Standing, lost, repair
from actorbus.replay.replay import Outcome, Replay
from actorbus.replay.said import Said

__all__ = [
    "Difference",
    "Divergence",
    "Outcome",
    "Repair",
    "Replay",
    "Said",
    "Standing",
    "Step",
    "lost",
    "repair",
]
