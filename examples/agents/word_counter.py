"""Loaded by 18_load.py."""

from actorbus import Agent, handles


class WordCounter(Agent):
    """Counts the words of a text."""

    capabilities = ("count-words",)

    @handles
    def count(self, text: str) -> int:
        return len(text.split())
