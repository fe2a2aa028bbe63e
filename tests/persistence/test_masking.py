from __future__ import annotations

import json
import string
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actorbus import Node, agent
from actorbus.errors import InvalidSettings
from actorbus.persistence.audit import Audit
from actorbus.persistence.masking import Mask, is_card, is_iban

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

MASK = Mask()
ALNUM = string.ascii_letters + string.digits
before = st.sampled_from(["", "call ", "my card: ", "(", 'x="', "\n", "for: "])
after = st.sampled_from(["", " please", ", thanks", ")", '"', "\n", "."])


def luhn_completed(digits: str) -> str:
    return next(digits + str(last) for last in range(10) if is_card(digits + str(last)))


cards = st.builds(
    lambda first, rest: luhn_completed(first + rest),
    st.sampled_from("23456"),
    st.text("0123456789", min_size=11, max_size=17),
)
ibans = st.builds(
    lambda country, account: next(
        iban for check in range(2, 99) if is_iban(iban := f"{country}{check:02d}{account}")
    ),
    st.text(string.ascii_uppercase, min_size=2, max_size=2),
    st.text(string.ascii_uppercase + string.digits, min_size=11, max_size=30),
)
emails = st.builds(
    lambda user, host, top: f"{user}@{host}.{top}",
    st.from_regex(r"[a-z0-9][a-z0-9._+-]{0,30}[a-z0-9]", fullmatch=True),
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True),
    st.sampled_from(["com", "no", "museum", "co.uk", "xn--p1ai"]),
)
phones = st.builds(
    lambda code, groups, gap: f"+{code}{gap}{gap.join(groups)}",
    st.integers(1, 99),
    st.lists(st.text("0123456789", min_size=2, max_size=4), min_size=3, max_size=3),
    st.sampled_from(["", " ", "-", "."]),
)
tokens = st.one_of(
    st.text(string.ascii_uppercase + string.digits, min_size=16, max_size=16).map(
        lambda rest: f"AKIA{rest}"
    ),
    st.builds(
        str.__add__,
        st.sampled_from(["ghp_", "gho_", "ghs_", "github_pat_", "sk-proj-", "sk-ant-api03-"]),
        st.text(ALNUM, min_size=36, max_size=80),
    ),
    st.from_regex(r"xox[bp]-[0-9]{10,12}-[A-Za-z0-9]{24}", fullmatch=True),
    st.from_regex(
        r"eyJ[A-Za-z0-9_-]{10,40}\.[A-Za-z0-9_-]{10,40}\.[A-Za-z0-9]{10,40}", fullmatch=True
    ),
)


def spaced(text: str) -> str:
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


@given(card=cards, before=before, after=after, shape=st.sampled_from([str, spaced]))
def test_every_valid_card_is_masked(card: str, before: str, after: str, shape: Any) -> None:
    masked = MASK.text(before + shape(card) + after)

    assert masked == f"{before}[card]{after}"


@given(iban=ibans, before=before, after=after, shape=st.sampled_from([str, spaced]))
def test_every_valid_iban_is_masked(iban: str, before: str, after: str, shape: Any) -> None:
    masked = Mask(["iban"]).text(before + shape(iban) + after)

    assert "[iban]" in masked
    assert shape(iban) not in masked


@given(email=emails, before=before, after=after)
def test_every_email_is_masked(email: str, before: str, after: str) -> None:
    masked = MASK.text(before + email + after)

    assert email not in masked
    assert "[email]" in masked


@given(phone=phones, before=before, after=after)
def test_every_international_phone_is_masked(phone: str, before: str, after: str) -> None:
    assert Mask(["phone"]).text(before + phone + after) == f"{before}[phone]{after}"


@pytest.mark.parametrize("phone", ["(212) 555-0123", "212-555-0123", "030 1234567"])
def test_a_phone_as_written_at_home_is_masked(phone: str) -> None:
    assert MASK.text(f"call {phone} now") == "call [phone] now"


@given(token=tokens, before=before, after=after)
def test_every_token_is_masked(token: str, before: str, after: str) -> None:
    masked = MASK.text(before + token + after)

    assert token not in masked
    assert "[secret]" in masked


def test_a_private_key_is_masked_even_when_it_is_cut_off() -> None:
    whole = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- kept"

    assert MASK.text(whole) == "[secret] kept"
    assert MASK.text("-----BEGIN PRIVATE KEY-----\nMIIE") == "[secret]"


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("password=hunter2 x", "password=[secret] x"),
        ("api_key: 'abc'", "api_key: [secret]"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer [secret]"),
        ("postgresql://me:pw@host/db", "postgresql://me:[secret]@host/db"),
    ],
)
def test_a_secret_that_is_named_is_masked(said: str, written: str) -> None:
    assert Mask(["secrets"]).text(said) == written


@pytest.mark.parametrize("key", ["password", "apiKey", "db_password", "X-Api-Key", "accessToken"])
def test_a_value_under_a_secret_key_is_masked_whole(key: str) -> None:
    document = json.dumps({"kept": 1, "in": [{key: ["a", 1]}]})

    assert json.loads(MASK.document(document)) == {"kept": 1, "in": [{key: "[secret]"}]}


@pytest.mark.parametrize("key", ["compass", "tokens_used", "passenger", "monkey", "author"])
def test_a_key_that_only_sounds_secret_is_kept(key: str) -> None:
    document = json.dumps({key: 7})

    assert MASK.document(document) == document


@given(st.integers(0, 999_999_999_999))
def test_ordinary_numbers_stay(number: int) -> None:
    assert MASK.text(f"order {number} done") == f"order {number} done"
    assert MASK.document(str(number)) == str(number)


@given(st.uuids())
def test_uuids_stay(uuid: UUID) -> None:
    assert MASK.text(f"id {uuid}") == f"id {uuid}"


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_fractions_stay(number: float) -> None:
    assert MASK.document(json.dumps(number)) == json.dumps(number)


@given(st.datetimes())
def test_times_stay(moment: Any) -> None:
    assert MASK.text(moment.isoformat()) == moment.isoformat()


def test_a_card_that_is_a_number_becomes_a_text() -> None:
    assert json.loads(MASK.document('{"n": 4111111111111111}')) == {"n": "[card]"}


def test_what_holds_nothing_to_mask_stays_as_it_is() -> None:
    document = '{"b": 1.50, "a": "plain words"}'

    assert MASK.document(document) == document


def test_a_kind_that_nobody_knows_gets_help() -> None:
    with pytest.raises(InvalidSettings, match="Did you mean 'email'"):
        Mask(["emial"])


def test_history_keeps_less_than_the_recipient_got(tmp_path: Path) -> None:
    got: list[object] = []

    @agent
    def clerk(letter: dict[str, str]) -> str:
        got.append(letter)
        return f"answered {letter['from']}"

    audit = Audit(f"sqlite:///{tmp_path / 'history.db'}", mask=["email", "secrets"])
    with Node(audit=audit) as node:
        node.spawn(clerk, name="clerk")
        answer = node.ask("clerk", {"from": "ada@example.org", "password": "open sesame"}).get()
        node.drain(10)
        kept = [view.payload for view in node.audit.messages()]

    assert got == [{"from": "ada@example.org", "password": "open sesame"}]
    assert answer == "answered ada@example.org"
    assert kept == ["answered [email]", {"from": "[email]", "password": "[secret]"}]
