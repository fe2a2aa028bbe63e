"""The agents of the example deployment. Put yours here; they move between nodes by themselves."""

from __future__ import annotations

from pydantic import BaseModel

from actorbus import Agent, handles


class Text(BaseModel):
    body: str


class Count(BaseModel):
    words: int


class WordCounter(Agent):
    capabilities = ("count-words",)

    @handles
    def count(self, text: Text) -> Count:
        return Count(words=len(text.body.split()))
