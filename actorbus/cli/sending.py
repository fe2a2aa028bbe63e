"""What `send` and `ask` share: to whom, what, and how."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from actorbus.errors import InvalidArgument, did_you_mean
from actorbus.message import Priority

MOST_READ: Final = 64 << 20
"""Characters of a payload that are read before it is known to be too large."""

Target = Annotated[
    str, typer.Argument(metavar="NAME", help="The agent. Left out with --any, --all and others.")
]
Payload = Annotated[
    str | None,
    typer.Argument(
        metavar="PAYLOAD",
        help="JSON text, @FILE that holds it, or - for stdin. An object reaches the handler whose"
        " model it fits.",
    ),
]
AnyOf = Annotated[
    str | None, typer.Option("--any", metavar="CAPABILITY", help="To the least busy who offers it.")
]
AllOf = Annotated[
    str | None, typer.Option("--all", metavar="CAPABILITY", help="To everyone who offers it.")
]
Level = Annotated[
    str, typer.Option("--priority", metavar="WORD", help="urgent, high, normal or low.")
]
Headers = Annotated[
    list[str] | None,
    typer.Option("--headers", metavar="KEY=VALUE", help="An entry of yours; may be repeated."),
]
As = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="NODE",
        help="The node whose key signs it (ACTORBUS_SIGNING_KEY), where nodes ask for that.",
    ),
]


def addressee(
    name: str, payload: str | None, others: dict[str, str | bool | None]
) -> tuple[str, str, str]:
    """The option that says to whom ("" for a name), its value, and the payload's text.

    Raises:
        InvalidArgument: nobody is meant, or several are.
    """
    chosen = {option: value for option, value in others.items() if value}
    if len(chosen) > 1:
        raise InvalidArgument("a recipient", " ".join(chosen), "give one of these, not several")
    if not chosen:
        if payload is None:
            way = f"give a NAME and a PAYLOAD, or a PAYLOAD and one of {', '.join(others)}"
            raise InvalidArgument("a recipient", name, way)
        return "", name, payload
    ((option, value),) = chosen.items()
    if payload is not None:
        raise InvalidArgument("a recipient", name, f"{option} says to whom; give a PAYLOAD alone")
    return option, str(value), name


def value_of(text: str) -> Any:
    """The payload that `text` means: JSON, ``@file``, or ``-``.

    Raises:
        InvalidArgument: it is no JSON, or the file cannot be read.
    """
    source = "the payload"
    try:
        if text == "-":
            source, text = "stdin", sys.stdin.read(MOST_READ)
        elif text.startswith("@"):
            source = text[1:]
            with Path(source).open(encoding="utf-8") as file:
                text = file.read(MOST_READ)
    except OSError as error:
        raise InvalidArgument("a payload", source, error.strerror or str(error)) from None
    except UnicodeDecodeError:
        raise InvalidArgument("a payload", source, "it is no text in UTF-8") from None
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError:
        raise InvalidArgument("a payload", source, "it is nested too deep") from None
    except ValueError as error:
        why = f"it is no JSON ({error}); a text is written '\"so\"', an object '{{\"key\": 1}}'"
        raise InvalidArgument("a payload", text[:60], why) from None


def priority_of(word: str) -> Priority:
    """
    Raises:
        InvalidArgument: no priority's name.
    """
    try:
        return Priority[word.upper()]
    except KeyError:
        known = [one.name.lower() for one in Priority]
        why = f"it is one of {', '.join(known)}.{did_you_mean(word.lower(), known)}"
        raise InvalidArgument("a priority", word, why) from None


def headers_of(pairs: list[str] | None) -> dict[str, str] | None:
    """
    Raises:
        InvalidArgument: one without `=`.
    """
    found: dict[str, str] = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidArgument("a header", pair, "it is written KEY=VALUE")
        found[key] = value
    return found or None


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number in JSON")
