"""Ask for what you need, not for who does it: any() is the least busy one, all() everyone."""

from collections import Counter

from actorbus import Agent, Node, NoProvider, handles


class Painter(Agent):
    capabilities = ("paint", "draw")

    @handles
    def paint(self, subject: str) -> str:
        return f"{subject}, by {self.name}"


with Node() as node:
    for name in ("Frida", "Paul", "Vincent"):
        node.spawn(Painter, name=name)

    print(node.all("paint").ask("a chair").get())

    replies = [node.any("paint").ask("a flower") for _ in range(300)]
    painters = Counter(reply.get().split()[-1] for reply in replies)
    print(sorted(painters), "shared", painters.total())

    try:
        node.any("pint").tell("a dog")
    except NoProvider as error:
        print(error)

# Prints:
#   ['a chair, by Frida', 'a chair, by Paul', 'a chair, by Vincent']
#   ['Frida', 'Paul', 'Vincent'] shared 300
#   no agent offers 'pint'. Did you mean 'paint'? Offered: draw, paint.
