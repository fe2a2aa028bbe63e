"""Loaded by 18_load.py."""

from actorbus import agent


@agent(capabilities=("change-case",))
def shouter(text: str) -> str:
    """Says it louder."""
    return text.upper()
