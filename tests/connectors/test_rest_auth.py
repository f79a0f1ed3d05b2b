"""Authentication: the table of machina-format.md 6.4, and what authors make of it."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from machina.connectors.rest.auth import authenticate
from machina.connectors.rest.openapi import Api


def headers_and_query(
    scheme: dict[str, Any] | None,
    credentials: dict[str, Any],
    inputs: dict[str, Any] | None = None,
    *,
    name: str = "theScheme",
) -> tuple[dict[str, str], dict[str, str]]:
    """What one scheme makes of these context variables."""
    schemes = {} if scheme is None else {name: scheme}
    api = Api({"components": {"securitySchemes": schemes}, "paths": {}})
    made = authenticate(api.schemes, None, credentials, inputs)
    return made.headers, made.query


IN_HEADER = {"type": "apiKey", "in": "header", "name": "X-Api-Key"}
IN_QUERY = {"type": "apiKey", "in": "query", "name": "key"}
PARAMS_QUERY = {"type": "params", "in": "query", "name": "api_key"}
PARAMS_HEADER = {"type": "params", "in": "header", "name": "X-Key"}
BEARER = {"type": "http", "scheme": "bearer"}
BASIC = {"type": "http", "scheme": "basic"}


@pytest.mark.parametrize(
    ("scheme", "credentials", "headers"),
    [
        (IN_HEADER, {"X-Api-Key": "v"}, {"X-Api-Key": "v"}),
        (IN_HEADER, {"x-api-key": "v"}, {"X-Api-Key": "v"}),
        (IN_HEADER, {"theScheme": "v"}, {"X-Api-Key": "v"}),
        (IN_HEADER, {"api_key": "v"}, {"X-Api-Key": "v"}),
        (IN_HEADER, {"api_key": "3", "theScheme": "2", "x-api-key": "1"}, {"X-Api-Key": "1"}),
        (IN_HEADER, {"x-api-key": "Bearer v"}, {"X-Api-Key": "Bearer v"}),
        (IN_HEADER, {"x-api-key": None, "api_key": "v"}, {"X-Api-Key": "v"}),
        (IN_HEADER, {"api_key": 12}, {"X-Api-Key": "12"}),
        (IN_HEADER, {"api_key": "v\n"}, {"X-Api-Key": "v"}),
        ({**IN_HEADER, "type": "apikey"}, {"api_key": "v"}, {"X-Api-Key": "v"}),
        (PARAMS_HEADER, {"x-key": "v"}, {"X-Key": "v"}),
        (PARAMS_HEADER, {"api_key": "v"}, {"X-Key": "v"}),
        (BEARER, {"theScheme": "v"}, {"Authorization": "Bearer v"}),
        (BEARER, {"thescheme": "v"}, {"Authorization": "Bearer v"}),
        (BEARER, {"authorization": "v"}, {"Authorization": "Bearer v"}),
        (BEARER, {"api_key": "v"}, {"Authorization": "Bearer v"}),
        (BEARER, {"theScheme": "Bearer v"}, {"Authorization": "Bearer v"}),
        (BEARER, {"authorization": "bearer v"}, {"Authorization": "bearer v"}),
        (BEARER, {"api_key": "Bearer v"}, {"Authorization": "Bearer v"}),
        (BEARER, {"authorization": "Token v"}, {"Authorization": "Token v"}),
        ({"type": "http", "scheme": "Bearer"}, {"api_key": "v"}, {"Authorization": "Bearer v"}),
        ({"type": "oauth2", "flows": {}}, {"api_key": "v"}, {"Authorization": "Bearer v"}),
        ({"type": "http", "scheme": "digest"}, {"authorization": "v"}, {"Authorization": "v"}),
        ({"type": "mutualTLS"}, {"authorization": "v"}, {"authorization": "v"}),
        (BASIC, {"authorization": "Basic eA=="}, {"authorization": "Basic eA=="}),
        (None, {"authorization": "v", "X-Rapid": "r", "site": "s"}, None),
        (IN_HEADER, {"something": "v"}, {}),
        (IN_HEADER, {"x-other": "v"}, {"x-other": "v"}),
        (IN_HEADER, {}, {}),
    ],
)
def test_a_header_is_made_of_the_context_variables(
    scheme: dict[str, Any] | None, credentials: dict[str, Any], headers: dict[str, str] | None
) -> None:
    expected = {"authorization": "v", "X-Rapid": "r"} if headers is None else headers
    assert headers_and_query(scheme, credentials) == (expected, {})


@pytest.mark.parametrize(
    ("scheme", "credentials", "inputs", "query"),
    [
        (IN_QUERY, {"KEY": "v"}, {}, {"key": "v"}),
        (IN_QUERY, {"api_key": "v"}, {}, {"key": "v"}),
        (IN_QUERY, {}, {"key": "v"}, {}),
        (PARAMS_QUERY, {"api_key": "v"}, {}, {"api_key": "v"}),
        (PARAMS_QUERY, {}, {"api_key": "v"}, {"api_key": "v"}),
        (PARAMS_QUERY, {"api_key": "v"}, {"api_key": "w"}, {"api_key": "v"}),
    ],
)
def test_a_key_in_the_query(
    scheme: dict[str, Any],
    credentials: dict[str, Any],
    inputs: dict[str, Any],
    query: dict[str, str],
) -> None:
    assert headers_and_query(scheme, credentials, inputs) == ({}, query)


@pytest.mark.parametrize(
    ("credentials", "pair"),
    [
        ({"username": "api", "password": "geheim:ü"}, "api:geheim:ü"),
        ({"Username": "api"}, "api:"),
        ({"username": "api", "password": None}, "api:"),
    ],
)
def test_basic_is_user_and_password(credentials: dict[str, Any], pair: str) -> None:
    encoded = base64.b64encode(pair.encode()).decode()
    assert headers_and_query(BASIC, credentials)[0] == {"Authorization": f"Basic {encoded}"}


def test_a_bearer_scheme_may_be_called_basic() -> None:
    headers, _ = headers_and_query(BEARER, {"basicAuth": "v"}, name="basicAuth")
    assert headers == {"Authorization": "Bearer v"}


@pytest.mark.parametrize("field", ["securitySchemes", "securityDefinitions"])
def test_schemes_may_stand_at_the_root(field: str) -> None:
    api = Api({field: {"a": IN_HEADER}, "paths": {}})
    assert authenticate(api.schemes, None, {"api_key": "v"}).headers == {"X-Api-Key": "v"}


def test_a_scheme_may_be_a_reference_and_odd_ones_are_skipped() -> None:
    schemes = {"a": {"$ref": "#/x"}, "b": None, "c": "text", "d": {"type": 7}}
    api = Api({"securitySchemes": schemes, "x": IN_HEADER, "components": [], "paths": {}})
    assert [scheme.id for scheme in api.schemes] == ["a"]


def test_a_key_may_be_a_cookie() -> None:
    api = Api({"securitySchemes": {"a": {"type": "apiKey", "in": "cookie", "name": "sid"}}})
    assert authenticate(api.schemes, None, {"sid": "v"}).cookies == {"sid": "v"}


def chosen(security: Any, credentials: dict[str, Any], root: Any = None) -> dict[str, str]:
    """The headers of an operation that asks for `security`."""
    api = Api(
        {
            "securitySchemes": {
                "one": {"type": "apiKey", "name": "X-One"},
                "two": {"type": "apiKey", "name": "X-Two"},
                "three": {"type": "apiKey", "name": "X-Three"},
            },
            "security": root,
            "paths": {"/x": {"get": {"security": security}}},
        }
    )
    return authenticate(api.schemes, api.find("get-x"), credentials).headers


def test_the_first_alternative_with_all_its_values_is_sent() -> None:
    security: Any = [{"one": [], "two": []}, {"three": []}]
    assert chosen(security, {"one": "1", "two": "2", "three": "3"}) == {"X-One": "1", "X-Two": "2"}
    assert chosen(security, {"one": "1", "three": "3"}) == {"X-Three": "3"}


def test_schemes_with_a_value_are_sent_when_no_alternative_is_complete() -> None:
    assert chosen([{"two": []}], {"one": "1"}) == {"X-One": "1"}
    assert chosen([{"missing": []}], {"one": "1"}) == {"X-One": "1"}


@pytest.mark.parametrize("security", [None, [], [{}], "text", [None]])
def test_keys_are_sent_where_the_document_asks_for_none(security: Any) -> None:
    assert chosen(security, {"one": "1", "two": "2"}) == {"X-One": "1", "X-Two": "2"}


def test_what_the_document_asks_for_counts_where_the_operation_asks_for_nothing() -> None:
    assert chosen(None, {"api_key": "k"}, root=[{"two": []}]) == {"X-Two": "k"}
