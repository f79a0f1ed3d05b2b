"""What goes wrong inside a script, and what the person who must act is told."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import structlog.testing

from machina.connectors.scripts import ScriptConnector
from tests.connectors.scripting import body, call_of, failure, opened, run

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def scripts(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ScriptConnector]:
    async with opened(tmp_path_factory.mktemp("failures")) as connector:
        yield connector


@pytest.mark.parametrize(
    ("statement", "package"),
    [
        ("import nowhere_to_be_found.part", "'nowhere_to_be_found'"),
        ("from google.oauth2 import service_account", "'google-auth' (imported as google"),
        ("import slack_sdk", "'slack-sdk' (imported as slack_sdk)"),
        ("from json import no_such_name", "'json'"),
    ],
)
@pytest.mark.parametrize("lazily", [False, True])
async def test_a_missing_package_is_named_with_the_interpreter_that_lacks_it(
    scripts: ScriptConnector, statement: str, package: str, lazily: bool
) -> None:
    source = body(statement, "return {'status': True}")
    if not lazily:
        source = f"{statement}\n{body('return None')}"
    failed = await failure(scripts, source)
    assert failed.code == "package_missing"
    assert package in failed.message
    assert "MACHINA_SCRIPT_PYTHON" in failed.message


async def test_an_unknown_function_is_named_with_those_that_are_there(
    scripts: ScriptConnector,
) -> None:
    source = "import json\nfrom os import getcwd\n" + body("return None")
    failed = await failure(scripts, source, "list_models")
    assert failed.code == "command_unknown"
    assert "no function 'list_models'; it has run." in failed.message


async def test_a_constant_is_no_command(scripts: ScriptConnector) -> None:
    failed = await failure(scripts, "run = 7\n")
    assert failed.code == "command_unknown"


async def test_an_exception_is_told_by_type_and_message_and_its_trace_only_in_the_log(
    scripts: ScriptConnector,
) -> None:
    source = body("raise KeyError('weather ' + request['headers']['api_key'])")
    with structlog.testing.capture_logs() as logged:
        failed = await failure(scripts, source, credentials={"api_key": "k-123456789"})
    assert failed.code == "connector_failed"
    assert "raised KeyError: 'weather ***'" in failed.message
    assert "Traceback" not in failed.message
    [line] = [line for line in logged if line["event"] == "script.raised"]
    assert "line 2, in run" in line["exception"]
    assert "machina" not in line["exception"].replace("<script", "")
    assert "k-123456789" not in str(logged)


async def test_a_failure_text_shows_no_credential(scripts: ScriptConnector) -> None:
    source = body("return {'status': False, 'message': 'bad key ' + request['params']['token']}")
    failed = await failure(scripts, source, credentials={"token": "t-123456789"})
    assert "bad key ***" in failed.message


async def test_a_failure_text_shows_no_part_of_a_credential_with_parts(
    scripts: ScriptConnector,
) -> None:
    source = body("raise ValueError(request['headers']['account']['keys'][0])")
    account = {"account": {"keys": ["t-123456789"]}}
    with structlog.testing.capture_logs() as logged:
        failed = await failure(scripts, source, credentials=account)
    assert "ValueError: ***" in failed.message
    assert "t-123456789" not in str(logged)


async def test_a_syntax_error_names_its_line(scripts: ScriptConnector) -> None:
    failed = await failure(scripts, "def run(request):\n    return {'status': True\n")
    assert failed.code == "connector_failed"
    assert "SyntaxError" in failed.message
    assert "line 2" in failed.message


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("raise SystemExit(3)", "raised SystemExit: 3"),
        ("raise KeyboardInterrupt", "raised KeyboardInterrupt"),
        ("import os; os._exit(0)", "without an answer (exit code 0)"),
        ("import os; os.abort()", "without an answer (SIGABRT)"),
        ("import os; os.kill(os.getpid(), 11)", "without an answer (SIGSEGV)"),
        ("raise type('Odd', (Exception,), {'__str__': lambda s: 1 / 0})()", "could not be made"),
        ("import sys; sys.modules['__main__'].__dict__.clear(); raise ValueError(1)", "ValueError"),
    ],
)
async def test_a_script_that_tears_its_process_down_fails_alone(
    scripts: ScriptConnector, statement: str, text: str
) -> None:
    failed = await failure(scripts, body(statement))
    assert failed.code == "connector_failed"
    assert text in failed.message
    assert await run(scripts, body("return {'status': True, 'data': 1}")) == 1


@pytest.mark.parametrize(
    "definition", [{}, {"filecontent": ""}, {"filecontent": {"openapi": "3.0.0"}}]
)
async def test_a_connector_without_a_script_is_said_so(
    scripts: ScriptConnector, definition: dict[str, object]
) -> None:
    failed = await failure(scripts, "", definition={"filetype": "pyscript", **definition})
    assert failed.code == "connector_failed"
    assert "has no script" in failed.message


async def test_a_connector_that_is_not_installed_is_not_found(scripts: ScriptConnector) -> None:
    failed = await failure(scripts, "", definition=None)
    assert failed.code == "connector_not_found"


async def test_what_a_script_prints_is_logged_apart_from_its_answer(
    scripts: ScriptConnector,
) -> None:
    source = body(
        "import os, sys",
        "print('to', request['headers']['api_key'])",
        "print('aside', file=sys.stderr)",
        "os.write(1, b'raw\\n')",
        "return {'status': True, 'data': 'said'}",
    )
    with structlog.testing.capture_logs() as logged:
        assert await run(scripts, source, credentials={"api_key": "k-123456789"}) == "said"
    [line] = [line for line in logged if line["event"] == "script.printed"]
    assert sorted(line["output"].split("\n")) == ["", "aside", "raw", "to ***"]
    assert line["log_level"] == "debug"
    assert line["truncated"] is False


async def test_a_script_that_closes_its_outputs_still_answers(scripts: ScriptConnector) -> None:
    source = body(
        "import os, sys", "sys.stdout.close()", "sys.stderr = None", "os.close(2)",
        "return {'status': True, 'data': 5}",
    )  # fmt: skip
    assert await run(scripts, source) == 5


async def test_messages_are_bounded(scripts: ScriptConnector) -> None:
    failed = await failure(scripts, body("return {'status': False, 'message': 'x' * 1000000}"))
    assert len(failed.message) <= 2_000


async def test_numbers_and_texts_that_json_lacks_arrive_tamed(scripts: ScriptConnector) -> None:
    source = body(
        "import decimal, uuid, pathlib, enum, datetime",
        "class Color(enum.Enum): RED = 'red'",
        "data = {'nan': float('nan'), 'inf': [float('inf')], 'lone': 'a\\ud800b', 1: 'one',",
        "        None: 'none', False: 'no', 'd': decimal.Decimal('1.5'),",
        "        'i': decimal.Decimal('2'),",
        "        'set': {1}, 'keys': {'k': 1}.keys(), 'path': pathlib.PurePosixPath('/a'),",
        "        'color': Color.RED, 'took': datetime.timedelta(minutes=1),",
        "        'id': uuid.UUID(int=1), 'at': datetime.time(1, 2)}",
        "return {'status': True, 'data': data}",
    )
    got = await run(scripts, source)
    assert re.fullmatch("a.b", got.pop("lone"))
    assert got == {
        "nan": None,
        "inf": [None],
        "1": "one",
        "null": "none",
        "false": "no",
        "d": 1.5,
        "i": 2,
        "set": [1],
        "keys": ["k"],
        "path": "/a",
        "color": "red",
        "took": 60.0,
        "id": "00000000-0000-0000-0000-000000000001",
        "at": "01:02:00",
    }


async def test_a_huge_whole_number_does_not_break_the_answer(scripts: ScriptConnector) -> None:
    assert await run(scripts, body("return {'status': True, 'data': 2 ** 62}")) == 2**62
    big = await run(scripts, body("return {'status': True, 'data': 10 ** 30}"))
    assert float(big) == pytest.approx(1e30)


async def test_numpy_values_become_plain_ones(scripts: ScriptConnector) -> None:
    source = body(
        "import numpy",
        "data = {'n': numpy.int64(3), 'xs': numpy.array([[1.5, float('nan')]])}",
        "return {'status': True, 'data': data | {'t': numpy.bool_(True)}}",
    )
    assert await run(scripts, source) == {"n": 3, "xs": [[1.5, None]], "t": True}


async def test_a_copy_of_the_process_does_not_answer_a_second_time(
    scripts: ScriptConnector,
) -> None:
    source = body("import os", "os.fork()", "return {'status': True, 'data': 'once'}")
    call = call_of(source)
    assert [(await scripts.call(call)).data for _ in range(3)] == ["once"] * 3
