"""Rules of who may send what to whom: in Python, or in a file that operators keep.

::

    default = "deny"

    [[rule]]
    name = "scouts report"
    effect = "allow"
    sender = "scout-*"
    type = ["Finding", "app.models:Photo"]
    to = "librarian"
    topic = "news.>"

The first rule that fits a message decides; where none does, ``default``. A rule fits if each of
its fields does, a field if any of its patterns does, and a field that is left out always. Where
a message is going is one field with two names: ``to`` or ``topic``. JSON is read too, as
``{"default": ..., "rule": [...]}``.

==============  ================================================================================
``sender``      names of agents: ``*`` is any text, ``?`` one letter, ``[ab]`` one of these; the
                empty name is code that is no agent, so ``?*`` is every agent and ``*`` everyone
``capability``  names of capabilities that the sender offers, literally
``node``        names of nodes that vouch for the message by their signature, patterns as above;
                the empty name: nobody does. For the deliver side behind a transport that signs:
                elsewhere a sender could write that header itself
``type``        classes of payloads, as ``Name`` or ``module:Name``, literally. Only the class
                itself is allowed, and with a class all that inherit from it are denied. A dict
                is a dict: what it may be taken for is no concern here
``to``          names of agents, patterns as above; a broadcast goes to everyone, ``"*"``
``topic``       patterns of topics, as for ``subscribe``
==============  ================================================================================
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, fields
from fnmatch import translate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from actorbus.bus.middleware import destination
from actorbus.bus.routing import topic_matches
from actorbus.codec import source_name
from actorbus.codec.signing import NODE_HEADER
from actorbus.errors import InvalidName, InvalidSettings, did_you_mean
from actorbus.message import Message, check_pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Test = Callable[[Message[Any], Callable[[str], Iterable[object]]], bool]
    Capabilities = Callable[[str], Iterable[object]]

Effect = Literal["allow", "deny"]
Patterns = str | tuple[str, ...] | list[str] | None

_EFFECTS: Final = ("allow", "deny")
_FILE_LIMIT: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; see the module. ``name`` is what a refusal quotes."""

    effect: Effect
    name: str = ""
    sender: Patterns = None
    capability: Patterns = None
    node: Patterns = None
    type: Patterns = None
    to: Patterns = None
    topic: Patterns = None


_FIELDS: Final = tuple(field.name for field in fields(Rule))
_PATTERNS: Final = tuple(name for name in _FIELDS if name not in ("effect", "name"))


class Rules:
    """Rules in their order, as a policy for ``authorise``.

    Args:
        rules: the first that fits decides.
        default: what happens where none does.
        capabilities: of an agent, by its name; needed if a rule names any. Such as
            ``lambda name: node.registry.get(name).capabilities``. Where it raises, the message
            is refused.

    Raises:
        InvalidSettings: a rule that cannot be meant.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        *,
        default: Effect = "deny",
        capabilities: Capabilities | None = None,
    ) -> None:
        if default not in _EFFECTS:
            raise InvalidSettings(f"default: 'allow' or 'deny', not {default!r}")
        self._allowed = default == "allow"
        self._rules = [_checked(rule, number) for number, rule in enumerate(rules, 1)]
        if capabilities is None and any(rule.capability is not None for rule in rules):
            raise InvalidSettings(
                "a rule names a capability: say how to look those of an agent up, such as"
                " capabilities=lambda name: node.registry.get(name).capabilities"
            )
        self._capabilities = capabilities or _nothing

    @classmethod
    def load(cls, path: str | Path, *, capabilities: Capabilities | None = None) -> Rules:
        """The rules of a file: JSON if its name ends so, else TOML.

        Raises:
            InvalidSettings: the file cannot be read or meant; the error names the line.
        """
        path = Path(path)
        text = _text(path)
        try:
            given = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
        except ValueError as error:
            raise InvalidSettings(f"{path}: {error}") from None
        except RecursionError:
            raise InvalidSettings(f"{path}: nested too deep") from None
        try:
            default, rules = _read(given)
            return cls(rules, default=default, capabilities=capabilities)
        except _Wrong as wrong:
            line = _line(text, path.suffix == ".json", wrong.rule, wrong.field)
            where = f"{path}, line {line}" if line else str(path)
            raise InvalidSettings(f"{where}: {wrong}") from None

    def __call__(self, message: Message[Any]) -> bool | str:
        """True, or why not."""
        for rule in self._rules:
            if all(test(message, self._capabilities) for test in rule.tests):
                return rule.allows or f"{rule.name} forbids {_deed(message)}"
        return self._allowed or f"no rule allows {_deed(message)}"


@dataclass(frozen=True, slots=True)
class _Checked:
    name: str
    allows: bool
    tests: tuple[Test, ...]


class _Wrong(InvalidSettings):
    """A rule that cannot be meant: which one, counting from 1, and which of its fields."""

    def __init__(self, sentence: str, rule: int = 0, field: str = "") -> None:
        super().__init__(f"rule {rule}: {sentence}" if rule else sentence)
        self.rule = rule
        self.field = field


def _checked(rule: Rule, number: int) -> _Checked:
    if rule.effect not in _EFFECTS:
        wrong = f"effect: 'allow' or 'deny', not {rule.effect!r}"
        raise _Wrong(wrong, number, "effect")
    if not isinstance(rule.name, str):
        raise _Wrong(f"name: a str, not {rule.name!r}", number, "name")
    patterns = {name: _patterns(getattr(rule, name), number, name) for name in _PATTERNS}
    allows = rule.effect == "allow"
    tests: list[Test] = []
    if (senders := patterns["sender"]) is not None:
        tests.append(_by_text(senders, lambda message: message.sender or ""))
    if (nodes := patterns["node"]) is not None:
        tests.append(_by_text(nodes, lambda message: message.headers.get(NODE_HEADER, "")))
    if (types := patterns["type"]) is not None:
        tests.append(_by_type(frozenset(types), exactly=allows))
    if patterns["to"] is not None or patterns["topic"] is not None:
        tests.append(_by_destination(patterns["to"] or (), patterns["topic"] or ()))
    if (offered := patterns["capability"]) is not None:  # last: it may ask a registry
        tests.append(_by_capability(frozenset(offered)))
    name = f"rule {number}, {rule.name!r}," if rule.name else f"rule {number}"
    return _Checked(name, allows, tuple(tests))


def _patterns(given: object, rule: int, field: str) -> tuple[str, ...] | None:
    if given is None:
        return None
    found = (given,) if isinstance(given, str) else given
    if not isinstance(found, (list, tuple)) or not all(isinstance(one, str) for one in found):
        raise _Wrong(f"{field}: a str or a list of them, not {given!r}", rule, field)
    if not found:
        raise _Wrong(f"{field}: an empty list fits nothing; leave it out to fit all", rule, field)
    if field == "topic":
        for one in found:
            try:
                check_pattern(one)
            except InvalidName as error:
                raise _Wrong(f"topic: {error}", rule, field) from None
    return tuple(found)


def _by_text(patterns: tuple[str, ...], text: Callable[[Message[Any]], str]) -> Test:
    fits = _globs(patterns)
    return lambda message, _: fits(text(message)) is not None


def _by_type(names: frozenset[str], *, exactly: bool) -> Test:
    """By the class that the payload has, not by what its sender says that it is."""

    def test(message: Message[Any], _: object) -> bool:
        cls = type(message.payload)
        classes = (cls,) if exactly else cls.__mro__[:-1]
        return any(one.__qualname__ in names or source_name(one) in names for one in classes)

    return test


def _by_destination(agents: tuple[str, ...], topics: tuple[str, ...]) -> Test:
    fits = _globs(agents)

    def test(message: Message[Any], _: object) -> bool:
        topic = message.topic
        if topic is not None and any(topic_matches(pattern, topic) for pattern in topics):
            return True
        # On the send side an event is for nobody by name yet.
        to = destination(message)
        return bool(agents) and to != topic and fits(to) is not None

    return test


def _by_capability(names: frozenset[str]) -> Test:
    def test(message: Message[Any], offered_by: Capabilities) -> bool:
        sender = message.sender
        return sender is not None and any(str(one) in names for one in offered_by(sender))

    return test


def _globs(patterns: tuple[str, ...]) -> Callable[[str], re.Match[str] | None]:
    return re.compile("|".join(map(translate, patterns))).match


def _nothing(_name: str) -> tuple[object, ...]:
    return ()


def _deed(message: Message[Any]) -> str:
    sender = "code that is no agent" if message.sender is None else repr(message.sender)
    by = message.headers.get(NODE_HEADER)
    on = "" if by is None else f" on node {by!r}"
    payload = type(message.payload).__qualname__
    return f"{sender}{on} to send {payload} to {destination(message)!r}"


# -- files


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_LIMIT + 1)
    except OSError as error:
        raise InvalidSettings(f"{path}: {error.strerror}") from None
    if len(data) > _FILE_LIMIT:
        raise InvalidSettings(f"{path}: more than {_FILE_LIMIT:,} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InvalidSettings(f"{path}, line {line}: not text in UTF-8") from None


def _read(given: Any) -> tuple[Effect, list[Rule]]:
    if not isinstance(given, dict):
        raise _Wrong('a table of "default" and "rule" was expected')
    for key in given:
        if key not in ("default", "rule"):
            known = did_you_mean(key, ("default", "rule"))
            raise _Wrong(f"no {key!r} here.{known} Known: default, rule.", field=key)
    default, rules = given.get("default", "deny"), given.get("rule", [])
    if default not in _EFFECTS:
        raise _Wrong(f"default: 'allow' or 'deny', not {default!r}", field="default")
    if not isinstance(rules, list):
        raise _Wrong("rule: a list was expected; in TOML each begins with [[rule]]", field="rule")
    return default, [_rule(one, number) for number, one in enumerate(rules, 1)]


def _rule(given: Any, number: int) -> Rule:
    if not isinstance(given, dict):
        raise _Wrong(f"a table was expected, not {given!r}", number)
    for key in given:
        if key not in _FIELDS:
            known = did_you_mean(key, _FIELDS)
            raise _Wrong(f"no field {key!r}.{known} Known: {', '.join(_FIELDS)}.", number, key)
        if given[key] is None:
            raise _Wrong(f"{key}: a str or a list of them, not null", number, key)
    if "effect" not in given:
        raise _Wrong("it has no effect: 'allow' or 'deny'", number)
    return Rule(**given)


def _line(text: str, is_json: bool, rule: int, field: str) -> int | None:
    """The line of a rule's field, of the rule, or of a field of the file; None if not found."""
    starts = _json_rules(text) if is_json else _toml_rules(text)
    start, end = 0, starts[0] if starts else len(text)
    if rule:
        if rule > len(starts):
            return None
        start, end = starts[rule - 1], (*starts, len(text))[rule]
    name = re.escape(field)
    key = rf'"{name}"\s*:' if is_json else rf"^[ \t]*[\"']?{name}[\"']?\s*="
    found = re.compile(key, re.MULTILINE).search(text, start, end) if field else None
    if found is None and not rule:
        return None
    return text.count("\n", 0, found.end() if found else start) + 1


def _toml_rules(text: str) -> list[int]:
    """Where each rule begins."""
    found = re.finditer(r"^[ \t]*\[\[[ \t]*rule[ \t]*\]\]", text, re.MULTILINE)
    return [one.start() for one in found]


def _json_rules(text: str) -> list[int]:
    """Where each rule begins, as far as that can be told."""
    found = re.search(r'"rule"\s*:\s*\[', text)
    starts: list[int] = []
    at = found.end() if found else len(text)
    skip = re.compile(r"[\s,]*")
    decode = json.JSONDecoder().raw_decode
    while at < len(text):
        at = skip.match(text, at).end()  # type: ignore[union-attr]
        if text[at : at + 1] in ("]", ""):
            break
        starts.append(at)
        try:
            _, at = decode(text, at)
        except ValueError:  # those were other rules: a text that quotes some
            return []
    return starts
