"""Log lines: one per event, whole, and without anybody's secrets."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from machina.observability.logging import configure
from machina.settings import Settings


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def start(environment: str = "production", level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    settings = Settings.model_validate({"environment": environment, "log_level": level})
    configure(settings, process="worker", stream=stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_with_process_level_time_and_what_is_bound() -> None:
    stream = start()
    with structlog.contextvars.bound_contextvars(run_id="r1", attempt=2, request_id="q"):
        structlog.get_logger("machina.x").info("attempt.fenced", seq=17)
    [line] = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "attempt.fenced",
        "level": "info",
        "process": "worker",
        "run_id": "r1",
        "attempt": 2,
        "request_id": "q",
        "seq": 17,
    }


def test_stdlib_loggers_come_the_same_way() -> None:
    stream = start()
    with structlog.contextvars.bound_contextvars(run_id="r1"):
        logging.getLogger("uvicorn.error").warning("port %d taken", 5003)
    [line] = lines(stream)
    assert (line["event"], line["level"], line["run_id"], line["process"]) == (
        "port 5003 taken",
        "warning",
        "r1",
        "worker",
    )


def test_warnings_of_python_come_as_lines() -> None:
    stream = start()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.warn("old ways", stacklevel=1)
    assert "old ways" in lines(stream)[0]["event"]


def test_lines_below_the_level_are_left_out() -> None:
    stream = start(level="warning")
    structlog.get_logger().info("quiet.event")
    logging.getLogger("x").info("quiet too")
    structlog.get_logger().warning("loud.event")
    assert [line["event"] for line in lines(stream)] == ["loud.event"]


def test_dramatiqs_chatter_is_left_out_and_its_warnings_are_not() -> None:
    stream = start(level="debug")
    logging.getLogger("dramatiq.worker.Worker").info("Shutting down...")
    logging.getLogger("dramatiq.worker.Worker").warning("Failed")
    assert [line["event"] for line in lines(stream)] == ["Failed"]


def test_an_exception_keeps_its_traceback_in_one_line() -> None:
    stream = start()
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger().exception("run.defect")
    [line] = lines(stream)
    assert "Traceback" in line["exception"]
    assert "ValueError: broken" in line["exception"]


@pytest.mark.parametrize("environment", ["production", "dev"])
def test_a_caller_cannot_forge_a_line_or_move_the_cursor(environment: str) -> None:
    stream = start(environment)
    evil = "x\nforged.line\r\x1b[2J\x85\u2028end"
    structlog.get_logger().info("agent.unknown", name=evil)
    logging.getLogger("some.library").info("GET /%s", evil)
    written = stream.getvalue()
    assert len(written.splitlines()) == 2
    assert not set(written) & {"\r", "\x1b", "\x85", "\u2028"}


@pytest.mark.parametrize("environment", ["production", "dev"])
def test_secrets_are_masked(environment: str) -> None:
    stream = start(environment)
    log = structlog.get_logger()
    log.info("a.b", api_key="hunter2", authorization="hunter2", token="hunter2")
    log.info("a.b", url="redis://user:hunter2@host:6379/0", nested={"password": "hunter2"})
    log.info("a.b", header="Bearer hunter2", key=SecretStr("hunter2"), many=["Bearer hunter2"])
    log.info("a.b", text="key sk-hunter2hunter2hunter2 refused")
    log.info("a.b", path="/x?api_key=hunter2&y=1", ours="mk_0123abcd_hunter2hunter2hunter2")
    logging.getLogger("redis").error("Error connecting to redis://:hunter2@host")
    try:
        raise ValueError("mongodb://root:hunter2@db/machina does not answer")
    except ValueError:
        log.exception("store.down")
    written = stream.getvalue()
    assert "hunter2" not in written
    assert "user:***@host" in written
    assert "mk_0123abcd_***" in written
    assert "/x?api_key=***&y=1" in written


def test_names_that_only_look_like_secrets_stay_readable() -> None:
    stream = start()
    structlog.get_logger().info("run.ended", tokens={"input": 3}, key_id="k", attempt_token_ms=4)
    [line] = lines(stream)
    assert (line["tokens"], line["key_id"], line["attempt_token_ms"]) == ({"input": 3}, "k", 4)


def test_dev_writes_for_people() -> None:
    stream = start("dev")
    structlog.get_logger().info("worker.started", threads=1000)
    assert "worker.started" in stream.getvalue()
    assert "threads=1000" in stream.getvalue()
    with pytest.raises(json.JSONDecodeError):
        lines(stream)


def test_dev_tracebacks_do_not_show_local_variables() -> None:
    stream = start("dev")
    hidden = "local-" + "value"
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger().exception("run.defect", shown=len(hidden))
    assert "ValueError: broken" in stream.getvalue()
    assert "local-value" not in stream.getvalue()


def test_values_that_json_does_not_know_become_text() -> None:
    stream = start()
    structlog.get_logger().info("a.b", odd=object, bad=float("nan"), numbers={1: 2})
    [line] = lines(stream)
    assert "object" in line["odd"]
    assert line["bad"] is None
