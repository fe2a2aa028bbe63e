"""What redis-py's errors mean, in words that say what would have worked."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

RIGHTS: Final = "~{* resetchannels &{* +@all -@dangerous +info +client|setname"
"""What a bus needs of an ACL user's, as ACL SETUSER takes it, beside a password."""
CLUSTER_RIGHTS: Final = "+cluster|slots +cluster|info"
"""And in a cluster."""

_LOGIN: Final = "set ACTORBUS_REDIS_USERNAME and ACTORBUS_REDIS_PASSWORD"
_CERTIFICATE: Final = (
    "it does not take our certificate, or wants one: name its file, ACTORBUS_REDIS_CERT, and"
    " that of its key, ACTORBUS_REDIS_KEY"
)
_HUNG_UP: Final = (
    r"Connection closed by server|Protocol Error|Connection reset|[Bb]roken pipe"
    r"|(?:writing to|reading from) .*EOF"
)
"""Of one that was connected: with TLS, one that wants a certificate says so only then."""
_MEANINGS: Final = (
    (
        r"NOAUTH|Authentication required|AUTH.*required",
        f"it wants a user or a password: {_LOGIN}",
    ),
    (
        r"without any password configured",
        "it has no password, and was given one: leave the password out",
    ),
    (
        r"WRONGPASS|invalid username-password|invalid password",
        f"the user or the password is wrong: {_LOGIN}, or see who is disabled with ACL LIST",
    ),
    (
        r"NOPERM|has no permissions|can't run this command|can't access at least one of the",
        f"the user may not do this: allow it with ACL SETUSER and its name, {RIGHTS}, in a"
        f" cluster {CLUSTER_RIGHTS}, too",
    ),
    (
        r"[Hh]ostname mismatch|IP address mismatch|doesn't match",
        "its certificate is for another host name: use the one that it is for",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        "its certificate is signed by nobody known here: name the file of its authority,"
        " ACTORBUS_REDIS_CA",
    ),
    (
        r"CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE|BAD_CERTIFICATE|UNKNOWN_CA",
        _CERTIFICATE,
    ),
    (
        r"WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|UNEXPECTED_EOF|EOF occurred in violation",
        "it does not speak TLS there: use its TLS port, or a scheme that begins with redis"
        " instead of rediss",
    ),
    (
        r"KEY_VALUES_MISMATCH|NO_START_LINE|PEM lib|NO_CERTIFICATE_OR_CRL",
        "a file of ACTORBUS_REDIS_CA, _CERT or _KEY holds no PEM of that kind, or key and"
        " certificate are not a pair",
    ),
    (
        r"READONLY|demoted|now a slave",
        "it is a replica: give the address of the primary, or that of the sentinels",
    ),
    (
        r"Cluster mode is not enabled|cluster support disabled",
        "it is no cluster: use a scheme without +cluster",
    ),
    (
        r"unknown command .?SENTINEL",
        "it is no sentinel: give a sentinel's port, usually 26379, or use a scheme without"
        " +sentinel",
    ),
    (
        r"MovedError|AskError",
        "it is one of a cluster: use a scheme with +cluster",
    ),
    (
        r"\bOOM\b|used memory > .maxmemory",
        "its memory is full: let agents handle what waits, take out what is not ours, or raise"
        " maxmemory",
    ),
    (
        r"MISCONF",
        "it cannot write to its disk, and takes nothing before it can: see its log",
    ),
    (
        r"No master found for.*AuthenticationError",
        "the sentinels want a user or a password, or others: set ACTORBUS_REDIS_SENTINEL_USERNAME"
        " and ACTORBUS_REDIS_SENTINEL_PASSWORD",
    ),
    (
        r"No master found for",
        "no sentinel that answered knows a living master of that service",
    ),
)
_CLIENT: Final = r"<redis\.client\.Redis\(.*?\bhost=([^,)]*),port=(\d+).*?\)>\)>\)>"
"""How redis-py names a sentinel that does not answer: by all that it is configured with."""
_SILENT: Final = "it did not answer; where it speaks no TLS, the scheme begins with redis"
"""A server without TLS waits for the end of what it takes for a command."""


def meant(error: Exception, *, tls: bool) -> str:
    """The library's words, and before them what they mean, where that is known."""
    text = re.sub(_CLIENT, r"\1:\2", str(error)) or type(error).__name__
    if tls and "Timeout connecting" in text:
        return f"{_SILENT} ({text})"
    if re.search(_HUNG_UP, text):
        always = _CERTIFICATE if tls else "where it speaks TLS, the scheme begins with rediss"
        return f"it hung up; if it always does, {always} ({text})"
    meaning = answered(error)
    return f"{meaning} ({text})" if meaning else text


def answered(error: Exception) -> str:
    """What a server that can be reached said, where that is known; else nothing."""
    text = f"{type(error).__name__}: {error}"
    return next((meaning for pattern, meaning in _MEANINGS if re.search(pattern, text)), "")


def without(text: str, secrets: Iterable[str]) -> str:
    """`text` with every secret hidden, the longest first: one may be part of another."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text
