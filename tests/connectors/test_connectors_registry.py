"""Which connector answers a call, and what is forgotten when."""

from __future__ import annotations

from typing import Any

import pytest

from machina.connectors.base import ConnectorCall, ConnectorReply
from machina.connectors.registry import Connectors
from machina.errors import ConnectorFailed


class Named:
    """A type of connector that answers with its own name."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def call(self, call: ConnectorCall) -> ConnectorReply:
        return ConnectorReply(self.name)


class Keeping(Named):
    """One that keeps things per run, and open."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.forgotten: list[str] = []
        self.left: list[str] = []
        self.closed = False

    async def forget(self, run_id: str) -> None:
        self.forgotten.append(run_id)

    async def leave(self, run_id: str) -> None:
        self.left.append(run_id)

    async def aclose(self) -> None:
        self.closed = True


def a_call(definition: Any, name: str = "thing", command: str = "do") -> ConnectorCall:
    return ConnectorCall("run-1", name, command, definition, where="task 't' of workflow 'w'")


def registry(**more: Any) -> Connectors:
    types = {"restapi": Named("rest"), "pyscript": Keeping("script")}
    return Connectors(types, Named("http"), **more)


@pytest.mark.parametrize(
    ("definition", "answered"),
    [
        ({"filetype": "restapi"}, "rest"),
        ({"filetype": "pyscript"}, "script"),
        ({"filetype": " RestApi "}, "rest"),
        ({"filetype": "pyscript", "apiSpec": {"paths": {}}}, "script"),
        ({"apiSpec": {"paths": {}}}, "rest"),
        ({"filetype": None, "apiSpec": {"paths": {}}}, "rest"),
        ({"host": "a.test", "commands": [{"path": "/x"}]}, "rest"),
        ({"filename": "a/b.py", "filecontent": "def do(r): ..."}, "script"),
        ({"filename": "b.json", "filecontent": "{}"}, "rest"),
        ({"filename": "b.yml", "filecontent": "a: 1"}, "rest"),
        ({"filecontent": {"paths": {}}}, "rest"),
    ],
)
async def test_the_type_of_a_connector_answers(definition: Any, answered: str) -> None:
    assert (await registry().call(a_call(definition))).data == answered


@pytest.mark.parametrize(
    ("definition", "problem"),
    [
        ({"name": "thing"}, "has no filetype, no file and no apiSpec"),
        ({"filename": "b.json"}, "has no filetype, no file and no apiSpec"),
        ({"filename": "b.txt", "filecontent": "x"}, "has no filetype, no file and no apiSpec"),
        ({"host": "a.test", "commands": [{"name": "x"}]}, "has no filetype"),
        ({"filetype": "soap"}, "the filetype 'soap', which this server does not know"),
    ],
)
async def test_a_connector_without_a_type_fails_clearly(definition: Any, problem: str) -> None:
    with pytest.raises(ConnectorFailed, match=problem) as failed:
        await registry().call(a_call(definition))
    assert failed.value.code == "connector_failed"
    assert "'thing'" in failed.value.message


async def test_a_script_where_none_run_says_so() -> None:
    connectors = Connectors({"restapi": Named("rest")}, Named("http"))
    with pytest.raises(ConnectorFailed) as failed:
        await connectors.call(a_call({"filetype": "pyscript"}))
    assert failed.value.code == "scripts_disabled"


@pytest.mark.parametrize("name", ["thing", "xAI Grok", "HTTP", "machina-gcp-ai"])
async def test_a_connector_that_is_not_installed_is_not_found(name: str) -> None:
    with pytest.raises(ConnectorFailed) as failed:
        await registry().call(a_call(None, name))
    assert failed.value.code == "connector_not_found"
    assert name in failed.value.message


async def test_http_is_built_in_unless_one_of_that_name_is_installed() -> None:
    assert (await registry().call(a_call(None, "http"))).data == "http"
    assert (await registry().call(a_call({"filetype": "pyscript"}, "http"))).data == "script"


@pytest.mark.parametrize("definition", [None, {"filetype": "pyscript"}])
@pytest.mark.parametrize("command", ["invoke_prompt", "invoke_embedding"])
async def test_the_pairs_of_models_run_no_script(definition: Any, command: str) -> None:
    asked = []

    async def model(call: ConnectorCall) -> ConnectorReply:
        asked.append((call.name, call.command))
        return ConnectorReply("model")

    connectors = registry(call_model=model, serves_model=lambda name: name == "groq")

    assert (await connectors.call(a_call(definition, "groq", command))).data == "model"
    assert asked == [("groq", command)]
    if definition is not None:
        assert (await connectors.call(a_call(definition, "mine", command))).data == "script"
        assert (await connectors.call(a_call(definition, "groq", "list_models"))).data == "script"


async def test_the_pairs_fail_clearly_where_no_model_can_be_asked() -> None:
    connectors = registry(serves_model=lambda name: True)
    with pytest.raises(ConnectorFailed, match="make it a task of the type prompt"):
        await connectors.call(a_call(None, "groq", "invoke_prompt"))


async def test_a_run_that_made_calls_is_forgotten_once() -> None:
    script = Keeping("script")
    connectors = Connectors({"restapi": Named("rest"), "pyscript": script}, Named("http"))

    await connectors.forget("run-1")
    assert (script.forgotten, connectors.keeps("run-1")) == ([], False)
    await connectors.call(a_call({"filetype": "restapi"}))
    assert connectors.keeps("run-1")
    await connectors.forget("run-1")
    await connectors.forget("run-1")
    assert (script.forgotten, connectors.keeps("run-1")) == (["run-1"], False)


async def test_a_run_that_goes_on_elsewhere_is_left_and_not_forgotten() -> None:
    script = Keeping("script")
    connectors = Connectors({"restapi": Named("rest"), "pyscript": script}, Named("http"))
    await connectors.call(a_call({"filetype": "pyscript"}))
    await connectors.leave("run-1")
    assert (script.left, script.forgotten, connectors.keeps("run-1")) == (["run-1"], [], True)


async def test_closing_closes_what_is_open() -> None:
    script = Keeping("script")
    await Connectors({"restapi": Named("rest"), "pyscript": script}, Named("http")).aclose()
    assert script.closed
