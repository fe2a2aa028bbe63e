"""Payloads and messages as bytes: what travels, and what may come back.

The wire is msgpack in one frame of ``[version, ...]``, so every frame names its format. A whole
message is ``[version, head, label, payload]``, see ``envelope``; the payload is a frame again.

*A tag* carries what msgpack has no word for: a map whose only key is nil, over a list of a code
and its arguments, such as ``{nil: [7, <16 bytes>]}`` for a UUID. No dict of a user can look like
one, because nil is no key we carry. There are no msgpack extension types at all.

*A class* travels as the names of itself and its bases, nearest first, each ``module:qualname``
(``source_name``). A name on the wire is only ever looked up in a ``TypeBook``, never imported; the
nearest base known there is built, and an object of classes nobody knows arrives as the dict of
its fields (an enum member as its value). Fields unknown to the class that is built are dropped,
and those it knows but did not get take their defaults, so that two versions of a program can
talk. A pydantic model checks what arrives; a dataclass believes it, but for ``__post_init__``.

*Bytes are not to be trusted.* Size, and the number of lists and dicts, are looked at before
anything is unpacked and depth before anything is built; whatever is wrong is ``Undecodable``,
whose text never shows the bytes.

========================  =======================================================================
duplicate keys in a map   refused: a reader that keeps the last and one that keeps the first
                          would see two different messages
keys                      str, bytes, and ints of 64 bits: others can be made to collide
NaN and infinities        carried as the floats they are, refused as times of a message
bytes after the frame     refused
extension types           refused, msgpack's own timestamp too
depth                     at most ``MAX_DEPTH`` containers in one another, on either side
lists and dicts           at most one for every 8 bytes of the limit, or 16,384, on either side:
                          an empty one is a byte on the wire and half a microsecond of work
========================  =======================================================================
"""

from actorbus.codec.codec import Codec
from actorbus.codec.envelope import ENVELOPE_LIMIT
from actorbus.codec.frames import WIRE_VERSION
from actorbus.codec.names import source_name
from actorbus.codec.tags import MAX_DEPTH
from actorbus.codec.type_book import TypeBook

__all__ = [
    "ENVELOPE_LIMIT",
    "MAX_DEPTH",
    "WIRE_VERSION",
    "Codec",
    "TypeBook",
    "source_name",
]
