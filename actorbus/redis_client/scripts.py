"""Lua scripts, called by their digest."""

from __future__ import annotations

from hashlib import sha1
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis import Redis


class Script:
    """A Lua script. Calls of one are one command each; load it before it is pipelined.

    All keys that it touches are in one slot, and it writes nothing before all is checked.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        # Redis names scripts so; nothing depends on nobody finding another text.
        self.digest = sha1(text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, client: Redis, keys: Sequence[Any], arguments: Sequence[Any]) -> Any:
        """Run it, and load it where the server does not know it (any more)."""
        from redis.exceptions import NoScriptError

        try:
            return client.evalsha(self.digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return client.eval(self.text, len(keys), *keys, *arguments)


def run_all(
    client: Redis, calls: Sequence[tuple[Script, Sequence[Any], Sequence[Any]]]
) -> list[Any]:
    """Run many scripts in one round trip, each on its own; what one raises stands in its place.

    Scripts that the server did not know are loaded, and only those calls are sent again.
    """
    from redis.exceptions import NoScriptError

    results = _pipelined(client, calls)
    unknown = [at for at, one in enumerate(results) if isinstance(one, NoScriptError)]
    if unknown:
        for script in {calls[at][0] for at in unknown}:
            client.script_load(script.text)
        again = _pipelined(client, [calls[at] for at in unknown])
        for at, result in zip(unknown, again, strict=True):
            results[at] = result
    return results


def _pipelined(
    client: Redis, calls: Sequence[tuple[Script, Sequence[Any], Sequence[Any]]]
) -> list[Any]:
    pipeline = client.pipeline(transaction=False)
    for script, keys, arguments in calls:
        pipeline.evalsha(script.digest, len(keys), *keys, *arguments)
    return pipeline.execute(raise_on_error=False)
