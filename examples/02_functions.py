"""A function is an agent too: the hint of its argument says what it takes."""

from actorbus import Node, agent


@agent(capabilities=("shout",))
def upper(text: str) -> str:
    return text.upper()


def backwards(text: str) -> str:
    return text[::-1]


with Node() as node:
    first = node.spawn(upper)
    second = node.spawn(backwards, name="mirror")

    print(first.name, second.name)
    print(first.ask("hello").get())
    print(second.ask("hello").get())
    print(upper("still an ordinary function"))

# Prints:
#   upper-1 mirror
#   HELLO
#   olleh
#   STILL AN ORDINARY FUNCTION
