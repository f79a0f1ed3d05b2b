"""Known secrets are hidden wherever they stand, in whatever form."""

from __future__ import annotations

import base64
import contextvars
import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from machina.observability.logging import configure
from machina.observability.redaction import MASK, Redactor, is_secret_field, watch
from machina.settings import Settings

SECRET = 'p/a+ss "wörd"\n&x=1'


def knowing(*values: object) -> Redactor:
    redactor = Redactor()
    for number, value in enumerate(values):
        redactor.learn(f"S{number}", value)
    return redactor


@pytest.mark.parametrize(
    "form",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        repr(SECRET)[1:-1],
    ],
)
def test_a_secret_is_masked_in_every_written_form(form: str) -> None:
    assert knowing(SECRET).text(f"before {form} after") == f"before {MASK} after"


@pytest.mark.parametrize("user", ["", "u", "us", "user", "someone:else"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_secret_is_masked_inside_base64(user: str, encode: Any) -> None:
    secret = "correct horse battery staple"
    header = encode(f"{user}:{secret}".encode()).decode()
    shown = knowing(secret).text(f"Basic {header}")
    assert MASK in shown
    hidden = shown.replace(MASK, "").removeprefix("Basic ")
    assert len(hidden) < len(header) // 2


def test_a_service_account_is_masked_with_the_key_inside_it() -> None:
    account = json.dumps({"type": "service_account", "private_key": "-----BEGIN\nabc-----"})
    redactor = knowing(account)
    assert redactor.text(f"got {account}") == f"got {MASK}"
    assert redactor.text("signs with -----BEGIN\nabc-----") == f"signs with {MASK}"
    assert redactor.text("a service_account") == "a service_account"


@pytest.mark.parametrize("value", [None, 7, "", "short", "     x", ["abcdefgh"]])
def test_what_is_no_text_of_six_characters_is_no_secret(value: Any) -> None:
    redactor = knowing(value)
    assert redactor.is_idle
    assert redactor.text(f"{value}") == f"{value}"


def test_values_are_masked_at_every_depth_in_keys_too() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    value = {"a": [{"b": "x hunter22 y", "n": 1}], "hunter22": now, "t": ("hunter22",)}
    assert knowing("hunter22").value(value) == {
        "a": [{"b": f"x {MASK} y", "n": 1}],
        MASK: now,
        "t": [MASK],
    }


def test_a_value_without_secrets_comes_back_as_it_is() -> None:
    value = {"a": [1, "text", {"b": object()}]}
    assert knowing("hunter22").value(value) is value
    assert Redactor().value(value) is value


def test_a_value_that_json_cannot_hold_is_looked_through_as_well() -> None:
    deep: Any = "hunter22"
    for _ in range(300):
        deep = [deep]
    shown = repr(knowing("hunter22").value({1: deep, "x": "hunter22"}))
    assert "hunter22" not in shown


def test_the_longer_of_two_secrets_is_masked_first() -> None:
    assert knowing("secret1", "secret12345").text("a secret12345") == f"a {MASK}"


def test_parts_name_the_secrets_and_can_be_put_together_again() -> None:
    redactor = knowing("hunter22", "swordfish")
    assert redactor.parts("plain") is None
    assert redactor.parts("hunter22") == [["S0"]]
    assert redactor.parts("a hunter22 b swordfish") == ["a ", ["S0"], " b ", ["S1"]]
    assert redactor.parts("hunter22hunter22") == [["S0"], ["S0"]]
    encoded = base64.b64encode(b"hunter22").decode()
    assert redactor.parts(f"x {encoded}") == [f"x {MASK}="]


@pytest.mark.parametrize(
    ("text", "held"),
    [("", 0), ("plain", 0), ("x hunt", 4), ("x h", 1), ("hunter22", 0), ("hhunter2", 7)],
)
def test_an_open_end_is_the_beginning_of_a_secret(text: str, held: int) -> None:
    redactor = Redactor()
    redactor.learn("S", "hunter22")
    assert redactor.open_end(text) == held


@given(
    secret=st.text(min_size=8, max_size=30).filter(lambda s: len(s.strip()) >= 6),
    before=st.text(max_size=20),
    after=st.text(max_size=20),
)
def test_no_text_keeps_a_secret(secret: str, before: str, after: str) -> None:
    shown = knowing(secret).value({"k": f"{before}{secret}{after}"})["k"]
    assert secret not in shown or secret in MASK * 40


@pytest.mark.parametrize(
    "name",
    [
        *("api_key", "x-api-key", "apiKey", "x-apisports-key", "Authorization", "password"),
        *("secret", "access_token", "client_secret", "credential", "private_key"),
        *("webhook_url", "bearerAuth"),
    ],
)
def test_names_of_credentials_are_known(name: str) -> None:
    assert is_secret_field(name)


@pytest.mark.parametrize("name", ["monkey", "tokens", "max_tokens", "keynote", "author", "value"])
def test_other_names_are_not(name: str) -> None:
    assert not is_secret_field(name)


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


@pytest.mark.usefixtures("logging_as_before")
def test_log_lines_of_a_context_pass_through_its_redactor() -> None:
    stream = io.StringIO()
    configure(Settings.model_validate({"environment": "production"}), process="t", stream=stream)
    contextvars.copy_context().run(write_lines)
    written = stream.getvalue()
    assert "hunter22" not in written
    assert written.count(MASK) >= 3


def write_lines() -> None:
    watch(knowing("hunter22"))
    log = structlog.get_logger("t")
    log.warning("thing.failed", error="said hunter22", more={"x": ["hunter22"]})
    try:
        raise ValueError("hunter22")
    except ValueError:
        log.exception("thing.broke")
