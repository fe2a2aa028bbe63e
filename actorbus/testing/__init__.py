"""The test kit that ships with actorbus."""
