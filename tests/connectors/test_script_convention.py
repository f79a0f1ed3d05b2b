"""How a script is called, and what counts as its success."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
import pytest_asyncio

from machina.connectors.scripts import ScriptConnector
from tests.connectors.scripting import SAMPLES, body, failure, opened, reply, run

pytestmark = pytest.mark.asyncio(loop_scope="module")

ECHO = body("return {'status': True, 'data': request}")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def scripts(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ScriptConnector]:
    async with opened(tmp_path_factory.mktemp("convention")) as connector:
        yield connector


async def test_the_function_gets_one_dictionary_with_these_four_keys(
    scripts: ScriptConnector,
) -> None:
    got = await run(
        scripts,
        ECHO,
        inputs={"city": "Rome"},
        attributes={"order_id": 7},
        credentials={"api_key": "k-123456"},
    )
    assert got == {
        "headers": {"api_key": "k-123456"},
        "params": {"city": "Rome", "api_key": "k-123456"},
        "path_attribute": {"order_id": 7},
        "connector_exec": "run",
    }


async def test_an_input_wins_over_block_and_credentials_of_the_same_name(
    scripts: ScriptConnector,
) -> None:
    got = await run(
        scripts,
        ECHO,
        inputs={"api_key": None, "model": "mine"},
        credentials={"api_key": "k-123456", "region": "eu"},
        block={"name": "demo", "model": "theirs", "provider": "vertex_ai", "location": "here"},
    )
    assert got["params"] == {
        "api_key": None,
        "model": "mine",
        "model_name": "theirs",
        "provider": "vertex_ai",
        "location": "here",
        "region": "eu",
    }
    assert got["headers"] == {"api_key": "k-123456", "region": "eu"}


async def test_an_input_called_command_does_not_land_on_top(scripts: ScriptConnector) -> None:
    got = await run(scripts, ECHO, inputs={"command": "x", "headers": 1})
    assert got["params"] == {"command": "x", "headers": 1}
    assert sorted(got) == ["connector_exec", "headers", "params", "path_attribute"]


async def test_a_factory_command_gets_its_parameters_flat_as_well(
    scripts: ScriptConnector,
) -> None:
    source = "def invoke_prompt(params):\n    return {'status': True, 'data': params}\n"
    got = await run(
        scripts,
        source,
        "invoke_prompt",
        inputs={"timeout": 5},
        credentials={"api_key": "k-123456"},
        block={"model": "small"},
    )
    assert (got["api_key"], got["model_name"], got["timeout"]) == ("k-123456", "small", 5)
    assert got["headers"] == {"api_key": "k-123456"}
    assert got["params"]["timeout"] == 5


async def test_a_streaming_run_gives_a_script_neither_redis_nor_a_channel(
    scripts: ScriptConnector,
) -> None:
    got = await run(scripts, ECHO)
    assert "redis_url" not in got
    assert "_stream_channel" not in got


async def test_helpers_constants_classes_and_lazy_imports_work(scripts: ScriptConnector) -> None:
    source = (SAMPLES / "weather.py").read_text()
    data = await run(scripts, source, "forecast", inputs={"city": "Rome"})
    assert data == {"city": "ROME", "readings": [{"hour": 6, "celsius": 11.5}], "unit": "C"}


async def test_a_function_may_take_more_arguments_than_it_is_given(
    scripts: ScriptConnector,
) -> None:
    source = """
        def run(request_data, *args, **kwargs):
            return {"status": True, "data": [len(args), len(kwargs)]}
    """
    assert await run(scripts, source) == [0, 0]


async def test_the_module_has_an_entry_in_the_module_table_and_no_file(
    scripts: ScriptConnector,
) -> None:
    source = """
        import sys

        def run(request):
            module = sys.modules[__name__]
            own = module.run is run
            return {"status": True, "data": [own, "__file__" in globals(), __name__ == "__main__"]}
    """
    assert await run(scripts, source) == [True, False, False]


async def test_the_same_content_is_executed_once_for_the_calls_of_a_run(
    scripts: ScriptConnector,
) -> None:
    source = """
        import time

        BORN = time.monotonic_ns()

        def run(request):
            return {"status": True, "data": BORN}
    """
    first = await run(scripts, source)
    assert await run(scripts, source) == first
    assert await run(scripts, source.replace("BORN", "MADE")) != first


async def test_nothing_of_our_own_modules_is_left_in_the_scripts_way(
    scripts: ScriptConnector,
) -> None:
    source = """
        import sys

        def run(request):
            ours = [n for n in sys.modules if n.split(".")[0] in ("child", "machina")]
            return {"status": True, "data": [ours, [p for p in sys.path if "machina" in p]]}
    """
    assert await run(scripts, source) == [[], []]


async def test_extra_keys_of_the_answer_come_back_beside_the_data(
    scripts: ScriptConnector,
) -> None:
    answer = await reply(
        scripts, body("return {'status': True, 'data': [1], 'message': 'ok', 'cost': 2}")
    )
    assert answer.data == [1]
    assert answer.envelope == {"status": True, "message": "ok", "cost": 2}


@pytest.mark.parametrize("data", ["text", ["a", "list"], {"a": {"dict": 1}}, None, 7, 1.5, False])
async def test_data_of_any_plain_kind_comes_back_as_it_is(
    scripts: ScriptConnector, data: Any
) -> None:
    assert await run(scripts, body(f"return {{'status': True, 'data': {data!r}}}")) == data


async def test_a_success_without_data_has_none(scripts: ScriptConnector) -> None:
    assert await run(scripts, body("return {'status': True}")) is None


async def test_dates_go_in_and_out_as_dates(scripts: ScriptConnector) -> None:
    moment = datetime(2026, 5, 1, 12, 30, tzinfo=UTC)
    source = body(
        "given = request['params']['moment']",
        "return {'status': True, 'data': [type(given).__name__, given, given.date()]}",
    )
    got = await run(scripts, source, inputs={"moment": moment})
    assert got == ["datetime", moment, date(2026, 5, 1)]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("{'status': False, 'message': 'no luck', 'error': 'other'}", "no luck"),
        ("{'status': 'error', 'error': {'message': 'inner words', 'code': 3}}", "inner words"),
        ("{'status': False, 'error': 'plain words', 'data': {'x': 1}}", "plain words"),
        ("{'status': 1, 'data': {}}", "`status` was '1'"),
        ("{'status': 'success', 'data': {}}", "`status` was 'success'"),
        ("{'data': {'x': 1}}", "no `status`"),
        ("{'status': None, 'message': ''}", "gave no reason"),
        ("[1, 2]", "a list instead of a dictionary"),
        ("'fine'", "a text instead of a dictionary"),
        ("None", "nothing instead of a dictionary"),
    ],
)
async def test_anything_but_true_as_status_is_a_failure_with_its_text(
    scripts: ScriptConnector, answer: str, text: str
) -> None:
    failed = await failure(scripts, body(f"return {answer}"))
    assert failed.code == "connector_failed"
    assert text in failed.message
    assert "task 'ask' of workflow 'flow'" in failed.message


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("b'raw'", "bytes at 'data.x'"),
        ("bytearray(b'raw')", "bytes at 'data.x'"),
        ("object()", "an object of type object at 'data.x'"),
        ("run", "an object of type function"),
        ("(n for n in range(3))", "an object of type generator"),
        ("__import__('socket').socket", "an object of type type"),
        ("pickle.PickleBuffer(b'x')", "an object of type PickleBuffer"),
        ("loop", "more than 100 levels"),
        ("lambda: 0", "an object of type function"),
    ],
)
async def test_what_is_no_data_is_refused_by_type_and_place(
    scripts: ScriptConnector, value: str, text: str
) -> None:
    source = "import pickle\nloop = []\nloop.append(loop)\n" + body(
        f"return {{'status': True, 'data': {{'x': {value}}}}}"
    )
    failed = await failure(scripts, source)
    assert failed.code == "connector_failed"
    assert text in failed.message


async def test_an_asynchronous_function_is_refused_as_no_data(scripts: ScriptConnector) -> None:
    failed = await failure(scripts, "async def run(request):\n    return {'status': True}\n")
    assert "an object of type coroutine" in failed.message


async def test_inputs_that_are_no_data_are_refused_before_anything_runs(
    scripts: ScriptConnector,
) -> None:
    failed = await failure(scripts, ECHO, inputs={"picture": b"\x89PNG"})
    assert "bytes at 'request.params.picture'" in failed.message


async def test_the_marks_of_dates_cannot_be_forged_by_data(scripts: ScriptConnector) -> None:
    odd = {"$machina": "datetime", "value": "2026-01-01"}
    assert (await run(scripts, ECHO, inputs={"odd": odd}))["params"]["odd"] == odd


async def test_a_forged_frame_is_refused_and_not_believed(scripts: ScriptConnector) -> None:
    source = body(
        "import os, socket",
        "for fd in range(3, 20):",
        "    try: peer = socket.socket(fileno=os.dup(fd))",
        "    except OSError: continue",
        '    text = b\'{"kind":"returned","value":{"$machina":"object","value":1}}\'',
        "    peer.sendall(len(text).to_bytes(4, 'big') + text)",
        "return {'status': True}",
    )
    failed = await failure(scripts, source)
    assert "answered nonsense" in failed.message
