"""An agent is a class whose marked methods take messages by their type."""

from pydantic import BaseModel

from actorbus import Agent, Node, handles


class Text(BaseModel):
    body: str


class Count(BaseModel):
    words: int


class WordCounter(Agent):
    @handles
    def count(self, text: Text) -> Count:
        return Count(words=len(text.body.split()))


with Node() as node:
    counter = node.spawn(WordCounter, name="counter")

    print(counter)
    print(repr(counter.ask(Text(body="to be or not to be")).get()))
    print(repr(counter.ask({"body": "a dict will do"}).get()))

# Prints:
#   <Ref 'counter'>
#   Count(words=6)
#   Count(words=4)
