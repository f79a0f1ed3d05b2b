"""The log of a run's tasks: what happened, why not, and with the debugger what went in and out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from machina.connectors.base import ConnectorReply
from machina.engine import run_agent, run_workflow
from machina.engine.task_log import MAX_BYTES, MAX_ENTRIES, TaskLog, Trace, abridge
from machina.events import encode_json
from machina.observability.redaction import Redactor
from tests.builders import World, agent, call_workflow, compute, failing, step, workflow

DEBUG: dict[str, Any] = {"debugger": {"enabled": True}}


async def log_of(definition: Any, world: World | None = None) -> list[dict[str, Any]]:
    world = world or World()
    context = world.context()
    run = run_agent if "workflows" in definition else run_workflow
    await run(definition, {}, context)
    return context.tasks.entries


def short(entries: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(entry["workflow"], entry["name"], entry["status"]) for entry in entries]


async def test_every_task_has_an_entry_with_its_status() -> None:
    entries = await log_of(
        workflow(
            compute("one", inputs={"secret": "1"}, outputs={"x": "2"}),
            compute("two", condition="$.get('x') == 3"),
            failing("three", continue_on_error=True),
            failing("four"),
            compute("five"),
        )
    )
    assert all(entry.pop("seconds") >= 0 for entry in entries)
    assert entries[:2] == [
        {"workflow": "flow", "type": "expression", "name": "one", "status": "executed"},
        {
            "workflow": "flow",
            "type": "expression",
            "name": "two",
            "status": "skipped",
            "condition": "$.get('x') == 3",
        },
    ]
    assert short(entries)[2:] == [("flow", "three", "failed"), ("flow", "four", "failed")]
    assert entries[2]["error"]["code"] == "task_type_unknown"
    assert "'three'" in entries[2]["error"]["message"]


async def test_the_debugger_adds_inputs_and_outputs() -> None:
    world = World()
    world.replies["shop"] = ConnectorReply({"n": 1})
    when = datetime(2026, 1, 2, tzinfo=UTC)
    task = {
        "type": "connector",
        "name": "call",
        "connector": {"name": "shop", "command": "get-x"},
        "inputs": {"q": "'tea'", "api_key": "'visible'", "at": "$.get('at')", "on": True},
        "outputs": {"n": "$.get('n')"},
    }
    context = world.context()
    await run_workflow(workflow(task, context_variables=DEBUG), {"at": when}, context)
    [entry] = context.tasks.entries
    assert entry["inputs"] == {"q": "tea", "api_key": "***", "at": when.isoformat(), "on": True}
    assert entry["outputs"] == {"n": 1}


@pytest.mark.parametrize("enabled", [False, "True", None, 1])
async def test_the_debugger_is_off_unless_it_is_true(enabled: Any) -> None:
    groups: Any = {"debugger": {"enabled": enabled}}
    [entry] = await log_of(workflow(compute(outputs={"x": "1"}), context_variables=groups))
    assert "inputs" not in entry


async def test_an_agents_debugger_counts_where_the_workflow_says_nothing() -> None:
    off = workflow(compute("a"), name="off", context_variables={"debugger": {"enabled": False}})
    silent = workflow(compute("b"), name="silent")
    actor = agent(step("off"), step("silent"), context_variables=DEBUG)
    entries = await log_of(actor, World(off, silent))
    assert [("inputs" in entry) for entry in entries] == [False, True]


async def test_a_failed_task_shows_the_inputs_it_failed_with() -> None:
    task = failing("bad", inputs={"q": "1"})
    [entry] = await log_of(workflow(task, context_variables=DEBUG))
    assert (entry["inputs"], entry["outputs"]) == ({"q": 1}, {})


async def test_a_loop_is_one_entry_with_its_last_inputs_and_its_merged_outputs() -> None:
    task = compute(
        foreach={"name": "i", "value": "[1, 2]"},
        inputs={"q": "$.get('i')"},
        outputs={"all": "[$.get('q')]"},
    )
    [entry] = await log_of(workflow(task, context_variables=DEBUG))
    assert (entry["inputs"], entry["outputs"]) == ({"q": 2}, {"all": [1, 2]})


async def test_inner_workflows_are_in_the_log_before_the_task_that_ran_them() -> None:
    inner = workflow(compute("deep"), name="inner")
    entries = await log_of(workflow(call_workflow("inner", "shallow")), World(inner))
    assert short(entries) == [("inner", "deep", "executed"), ("flow", "shallow", "executed")]


async def test_nothing_is_kept_in_the_store_for_a_single_task() -> None:
    world = World()
    await log_of(workflow(compute(), compute()), world)
    assert world.checkpoints == []


# bounds


def test_a_log_ends_when_it_has_enough_entries_and_says_so() -> None:
    log = TaskLog(Redactor())
    for number in range(MAX_ENTRIES + 5):
        log.add("w", ("t", str(number)), "executed", 0.1)
    assert len(log.entries) == MAX_ENTRIES
    assert log.entries[-1]["truncated"] is True
    assert "truncated" not in log.entries[-2]


def test_a_log_ends_when_it_has_enough_bytes() -> None:
    log = TaskLog(Redactor())
    for _ in range(200):
        log.add("w", ("t", "n"), "executed", 0.1, trace=Trace({"x": "y" * 9_000}, {"x": 1}))
    assert len(encode_json(log.entries)) <= MAX_BYTES + 1_000
    assert log.entries[-1]["truncated"] is True


def test_a_new_attempt_goes_on_with_the_log_of_the_checkpoint() -> None:
    kept: list[dict[str, Any]] = [{"name": "before", "status": "executed"}]
    TaskLog(Redactor(), kept).add("w", ("t", "after"), "executed", 0)
    assert [entry["name"] for entry in kept] == ["before", "after"]
    kept[-1]["truncated"] = True
    TaskLog(Redactor(), kept).add("w", ("t", "more"), "executed", 0)
    assert len(kept) == 2


@pytest.mark.parametrize(
    "value",
    [
        {"long": "x" * 1_000_000},
        {str(number): number for number in range(100_000)},
        [[[[[[[[[[[[[[[["deep"]]]]]]]]]]]]]]]],
        list(range(100_000)),
        {"a": ["y" * 100] * 10_000},
        {"k" * 100_000: 1},
    ],
)
def test_large_values_are_abridged(value: Any) -> None:
    shown = encode_json(abridge(value, str)).decode()
    assert len(shown) < 30_000
    assert "\\u2026" in shown


def test_a_secret_is_hidden_before_its_text_is_cut() -> None:
    redactor = Redactor()
    redactor.learn("S", "hunter22")
    text = "x" * 1_996 + "hunter22"
    assert abridge({"v": text}, redactor.text) == {"v": "x" * 1_996 + "***"}


def test_only_plain_data_is_in_a_log() -> None:
    shown = abridge({"s": {1}, "t": (2,), "o": object, "n": None, "f": 0.5}, str)
    assert (shown["s"], shown["t"], shown["n"], shown["f"]) == ([1], [2], None, 0.5)
    assert "object" in shown["o"]
