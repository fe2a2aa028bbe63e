"""How a command is declared: its own options, and by name of type what it shares with others."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from actorbus.cli import terminal
from actorbus.errors import (
    AuditUnavailable,
    HistoryHeld,
    InvalidArgument,
    InvalidAuditUrl,
    InvalidQuery,
    NotReplayable,
    UnknownRecord,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class From:
    """In ``Annotated``: the argument is what `make` returns, and the command takes the options
    that it is made from: the parameters of `make`, unless it says others."""

    def __init__(
        self, make: Callable[..., Any], options: Iterable[inspect.Parameter] | None = None
    ) -> None:
        self.make = make
        self.options = _parameters(make) if options is None else list(options)


def command(run: Callable[..., None]) -> Callable[..., None]:
    """`run` as typer takes it. What history refuses ends it with a sentence and an exit code."""
    options: list[inspect.Parameter] = []
    made_from: dict[str, From] = {}
    for parameter in _parameters(run):
        shared = _shared(parameter)
        if shared is None:
            options.append(parameter)
        else:
            made_from[parameter.name] = shared
            options += shared.options

    def called(**given: Any) -> None:
        try:
            made = {
                name: shared.make(**{one.name: given.pop(one.name) for one in shared.options})
                for name, shared in made_from.items()
            }
            run(**given, **made)
        except (InvalidArgument, InvalidAuditUrl, InvalidQuery) as error:
            terminal.fail(str(error), 2)
        except (AuditUnavailable, HistoryHeld, NotReplayable, UnknownRecord) as error:
            terminal.fail(str(error), 1)

    called.__name__ = run.__name__
    called.__doc__ = run.__doc__
    called.__annotations__ = {one.name: one.annotation for one in options}
    called.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    return called


def _parameters(of: Callable[..., Any]) -> list[inspect.Parameter]:
    found = inspect.signature(of, eval_str=True).parameters.values()
    return [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in found]


def _shared(parameter: inspect.Parameter) -> From | None:
    said = getattr(parameter.annotation, "__metadata__", ())
    return next((one for one in said if isinstance(one, From)), None)
