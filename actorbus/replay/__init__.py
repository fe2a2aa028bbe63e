"""A stored conversation runs again, offline; and what was lost is sent again.

Importing this imports the test kit's node, but no database client.
"""

from actorbus.replay.divergence import Difference, Divergence
from actorbus.replay.playing import Step
from actorbus.replay.replay import Outcome, Replay
from actorbus.replay.said import Said

__all__ = ["Difference", "Divergence", "Outcome", "Replay", "Said", "Step"]
