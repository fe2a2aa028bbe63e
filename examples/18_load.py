"""A folder of agents: each is made when the first message needs it, and what is broken is told."""

from pathlib import Path

from actorbus import Node

with Node() as node:
    loaded = node.load(Path(__file__).parent / "agents")

    for found in loaded.agents.values():
        print(f"{found.name}: {found.doc} Takes {', '.join(found.handles)}.")
    for broken in loaded.broken:
        print(f"{Path(broken.path).name}, line {broken.line}: {broken.error}")

    print(len(node.registry.find()), "made")
    print(node.ask("word-counter", "to be or not to be").get())
    print(node.any("change-case").ask("hello").get())
    print(len(node.registry.find()), "made")

# Prints:
#   shouter: Says it louder. Takes str.
#   word-counter: Counts the words of a text. Takes str.
#   unfinished.py, line 3: NotImplementedError: soon
#   0 made
#   6
#   HELLO
#   2 made
