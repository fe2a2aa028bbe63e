"""Trust on the wire: what a node signs with Ed25519, and what it believes of others.

A *sealed* blob says which node sealed it, when, and for which queue, and its signature covers
all of that. ``Signer.seal`` makes it, ``Verifier.open`` gives the blob back or says why not, and
``Trust`` is both as a node is set up. It begins with a byte that no frame of msgpack begins with,
so sealed and plain blobs are told apart by their first byte.

What it protects against is somebody who can write to the server between the nodes, or read and
repeat what passes there, and has none of their private keys:

==================  ===========================================================================
unknown node        nobody trusted has that name
forged              anything was changed: the blob, the sender's node, the time, the queue
misplaced           moved to another inbox, another level or another deployment
too old             sealed longer ago than the window, by the server's time
ahead               sealed later than now, by more than clocks differ: or delivered before due
replayed            put into its queue a second time
unsigned            not sealed at all, where all have to be
==================  ===========================================================================

*Replays.* A queue keeps the order in which a node filled it, so a reader needs to remember only
the last ids of each node and queue, and refuses what is older than the oldest it remembers. The
one legal way to come twice is to be read again from the same place in the log. Only the transport
knows that: it says ``again`` where it has read that item before, and ``forget`` when it becomes
the owner of an inbox that was another's in between. (The scheme is that of IPsec's
anti-replay window, RFC 4303 section 3.4.3.)

What it does *not* protect against:

- whoever can write to the server can still remove, withhold or reorder what is there;
- ids are remembered in memory, by the one that reads: what an owner before handled can be
  replayed to its successor, once, until it is older than the window. Handlers that must not run
  twice deduplicate;
- of more queues than are remembered, the one that was quiet for longest is forgotten, and open
  to replays within the window;
- it hides nothing: blobs are signed and not encrypted. TLS is for that;
- a node that is trusted may say anything in the name of any agent: policies bound that
  (``bus.middlewares.authorise``), and taking its key off the list ends it.

*Switching it on* takes two steps, so that a running deployment can go through it: give each node
its key (it seals what it sends, and reads both), then the list of those trusted (it refuses what
none of them sealed). A node without such a list takes the blob out of a seal unverified, for it
would believe the same without any seal.
"""

from actorbus.codec.signing.keys import KeyPair, make_keys, private_key, trusted_keys
from actorbus.codec.signing.sealing import (
    NODE_HEADER,
    SEAL_LIMIT,
    WINDOW,
    Distrust,
    Opened,
    Signer,
    Verifier,
    is_sealed,
    vouched,
)
from actorbus.codec.signing.trust import Trust

__all__ = [
    "NODE_HEADER",
    "SEAL_LIMIT",
    "WINDOW",
    "Distrust",
    "KeyPair",
    "Opened",
    "Signer",
    "Trust",
    "Verifier",
    "is_sealed",
    "make_keys",
    "private_key",
    "trusted_keys",
    "vouched",
]
