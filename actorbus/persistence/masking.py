"""Personal data and secrets, masked before they are written: what history never held cannot leak.

Applied in the writer's thread to payloads, headers and errors, before a row is hashed. What is
masked is gone: a replaced value cannot be had back. A payload's shape stays: only texts change,
a number that is a card's becomes a text, and a value under a key like ``password`` is masked
whole. Recall comes before precision where a checksum decides (a card's Luhn digit, an IBAN's
mod 97): one number in ten or a hundred that merely looks like one is masked as well.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from actorbus.errors import InvalidSettings, did_you_mean
from actorbus.persistence.payloads import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

EMAIL: Final = "[email]"
PHONE: Final = "[phone]"
CARD: Final = "[card]"
IBAN: Final = "[iban]"
SECRET: Final = "[secret]"

_EMAIL: Final = re.compile(
    r"(?<![\w.!#$%&'*+/=?^`{|}~-])[\w.!#$%&'*+/=?^`{|}~-]{1,64}@"
    r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_][\w-]{0,61}[^\W_]"
)
_CARD: Final = re.compile(r"(?<![\w.-])(?:\d[ -]?){12,18}\d(?![\w-])(?!\.\d)")
_IBAN: Final = re.compile(r"(?<!\w)[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]){11,30}(?!\w)")
_PHONE: Final = re.compile(
    r"(?<![\w.+-])(?:"
    r"(?:\+|00)[1-9](?:[ .()/-]{0,2}\d){6,14}"  # international
    r"|\(\d{2,5}\)[ .-]?\d{3,4}[ .-]?\d{3,4}"  # (212) 555-0123
    r"|\d{3}[ .-]\d{3}[ .-]\d{4}"  # 212-555-0123
    r"|0\d{2,4}[ /-]\d{3,4}[ -]?\d{3,5}"  # 030 1234567, 020 7946 0958
    r")(?![\w-])(?!\.\d)"
)
_SECRET: Final = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)"
    r"|(?<![A-Za-z0-9_-])(?:"
    r"(?:AKIA|ASIA|AGPA|AIDA|AROA|AIPA|ANPA|ANVA)[A-Z0-9]{16}"
    r"|gh[pousr]_[A-Za-z0-9]{36,255}"
    r"|github_pat_[A-Za-z0-9_]{22,255}"
    r"|sk-[A-Za-z0-9_-]{20,}"  # OpenAI; Anthropic's begin with sk-ant-
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,}"
    r"|xapp-[A-Za-z0-9-]{10,}"
    r"|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}"
    r"|glpat-[A-Za-z0-9_-]{20,}"
    r"|AIza[A-Za-z0-9_-]{35}"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"
    r")(?![A-Za-z0-9_])",
    re.DOTALL,
)
_KEY_NAMES: Final = (
    r"pass(?:word|wd|phrase|code)?|pwd|secret|api[_-]?key|private[_-]?key|access[_-]?key"
    r"|secret[_-]?key|signing[_-]?key|credentials?|authorization|auth[_-]?token|access[_-]?token"
    r"|refresh[_-]?token|id[_-]?token|session[_-]?token|bearer|token|cookie|set-cookie"
)
_SECRET_KEY: Final = re.compile(rf"(?:^|[^A-Za-z])(?:{_KEY_NAMES})$", re.IGNORECASE)
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_ASSIGNED: Final = re.compile(
    rf"(?i)(?<![A-Za-z])((?:{_KEY_NAMES})[\"']?\s*[:=]\s*(?:(?:bearer|basic)\s+)?)"
    r"(\"[^\"]*\"|'[^']*'|[^\s,;&\"']+)"
)
_BEARER: Final = re.compile(r"(?i)(?<![A-Za-z])((?:bearer|basic)\s+)([A-Za-z0-9._~+/=-]{16,})")
_URL_PASSWORD: Final = re.compile(r"(?<=://)([^\s:/@]*):([^\s/@]+)(?=@)")
_MAY_HIDE: Final = re.compile(r"[@\d=:-]|[A-Za-z]{3}")
_DEPTH: Final = 64


def _mask_emails(text: str) -> str:
    return _EMAIL.sub(EMAIL, text) if "@" in text else text


def _mask_cards(text: str) -> str:
    return _CARD.sub(lambda found: CARD if is_card(found.group()) else found.group(), text)


def _mask_ibans(text: str) -> str:
    return _IBAN.sub(_iban_in, text)


def _mask_phones(text: str) -> str:
    return _PHONE.sub(PHONE, text)


def _mask_secrets(text: str) -> str:
    text = _URL_PASSWORD.sub(rf"\1:{SECRET}", _SECRET.sub(SECRET, text))
    return _BEARER.sub(rf"\1{SECRET}", _ASSIGNED.sub(rf"\1{SECRET}", text))


_POLICIES: Final[Mapping[str, Callable[[str], str]]] = {
    # In this order: what is longer, or checked, before what is more easily mistaken.
    "secrets": _mask_secrets,
    "email": _mask_emails,
    "iban": _mask_ibans,
    "card": _mask_cards,
    "phone": _mask_phones,
}
POLICIES: Final = frozenset(_POLICIES)
"""What can be masked."""


class Mask:
    """A policy: which kinds of data are masked; all, unless some are named.

    Raises:
        InvalidSettings: there is no such kind.
    """

    def __init__(self, kinds: Iterable[str] = POLICIES) -> None:
        self.kinds = frozenset(kinds)
        for kind in sorted(self.kinds - POLICIES):
            raise InvalidSettings(
                f"no mask for {kind!r}.{did_you_mean(kind, POLICIES)}"
                f" There are {', '.join(sorted(POLICIES))}."
            )
        self._steps = [step for kind, step in _POLICIES.items() if kind in self.kinds]

    def text(self, text: str) -> str:
        for step in self._steps:
            text = step(text)
        return text

    def document(self, document: str) -> str:
        """JSON text with its texts masked; what cannot be read is masked as text."""
        if not _MAY_HIDE.search(document):
            return document
        try:
            value = json.loads(document)
            masked = self._value(value, _DEPTH)
        except (ValueError, RecursionError):
            return encode(self.text(document))
        return document if masked == value else encode(masked)

    def _value(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int):
            return self._number(value)
        if depth == 0:
            return self.text(json.dumps(value))
        if isinstance(value, list):
            return [self._value(item, depth - 1) for item in value]
        if isinstance(value, dict):
            return {self.text(key): self._under(key, value[key], depth - 1) for key in value}
        return value

    def _under(self, key: str, value: Any, depth: int) -> Any:
        if "secrets" in self.kinds and value not in (None, "", True, False) and is_secret(key):
            return SECRET
        return self._value(value, depth)

    def _number(self, value: int) -> Any:
        hidden = "card" in self.kinds and not isinstance(value, bool) and is_card(str(value))
        return CARD if hidden else value

    def __repr__(self) -> str:
        return f"<Mask {', '.join(sorted(self.kinds))}>"


def kinds_of(words: str | None) -> bool | frozenset[str]:
    """What is masked, as a setting says: ``all``, or some kinds with commas between.

    Raises:
        InvalidSettings: there is no such kind.
    """
    kinds = frozenset(filter(None, map(str.strip, (words or "").split(","))))
    if kinds == {"all"}:
        return True
    return bool(kinds) and Mask(kinds).kinds


def is_card(text: str) -> bool:
    """Whether this is the number of a payment card: 13 to 19 digits, an issuer's first, and a
    right check digit (ISO/IEC 7812)."""
    digits = [int(char) for char in text if char.isdecimal()]
    if not 13 <= len(digits) <= 19 or digits[0] not in (2, 3, 4, 5, 6):
        return False
    doubled = [2 * digit - 9 if digit > 4 else 2 * digit for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_iban(text: str) -> bool:
    """Whether the check digits are right (ISO 13616)."""
    plain = text.replace(" ", "").upper()
    return 15 <= len(plain) <= 34 and int("".join(_as_digits(plain[4:] + plain[:4]))) % 97 == 1


def is_secret(key: str) -> bool:
    """Whether what stands under a key of this name is a secret."""
    return _SECRET_KEY.search(_CAMEL.sub("_", key)) is not None


def _as_digits(text: str) -> Iterable[str]:
    return (str(int(char, 36)) for char in text)


def _iban_in(found: re.Match[str]) -> str:
    """An IBAN may be followed by words that look like more of it: the longest that checks."""
    text = found.group()
    for end in range(len(text), 14, -1):
        if (end == len(text) or text[end] == " ") and is_iban(text[:end]):
            return IBAN + text[end:]
    return text
