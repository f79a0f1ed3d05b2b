"""The runner notices when a case is not fulfilled: each expectation can fail."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.case_files import Case, load_cases
from tests.conformance.expectations import assert_has, assert_items, assert_same
from tests.conformance.runner import Deployment

FLOW = """
workflow:
  name: flow
  outputs: {a: "1"}
  tasks:
    - type: document
      name: write
      config: {action: save}
      documents: {item: "{'key': 'canary'}"}
"""


def case(expect: Mapping[str, Any]) -> Case:
    return Case("1 a case", "file.yaml", [FLOW], runs=[{"workflow": "flow"}], expect=expect)


@pytest.mark.parametrize(
    "expect",
    [
        {"status": "failed"},
        {"state": {"a": 1}},
        {"state": {"a": 1.0, "workflow-status": "executed"}},
        {"state_has": {"b": None}},
        {"content": "text"},
        {"error": {"code": "connector_failed"}},
        {"events": ["start", "content", "done"]},
        {"events": [{"type": "error"}]},
        {"events": [{"type": "done", "metadata": {"status": "failed"}}]},
        {"tasks": [["write", "skipped"]]},
        {"tasks": []},
        {"steps": []},
        {"documents": []},
        {"documents": [{"name": "item", "value": {"key": "other"}}]},
        {"requests": [{"method": "GET"}]},
        {"installed": [{"message": "agent saved"}]},
        {"secrets": {"X": "y"}},
        {"tokens": {"total_tokens": 1}},
        {"absent": ["canary"]},
    ],
    ids=str,
)
@pytest.mark.asyncio(loop_scope="module")
async def test_what_was_expected_and_not_seen_fails(
    expect: dict[str, Any], deployment: Deployment
) -> None:
    with pytest.raises(AssertionError):
        await deployment.prove(case(expect))


@pytest.mark.asyncio(loop_scope="module")
async def test_what_was_seen_as_expected_passes(deployment: Deployment) -> None:
    seen = await deployment.prove(
        case(
            {
                "state": {"a": 1, "workflow-status": "executed"},
                "events": ["start", "done"],
                "documents": [{"name": "item", "value": {"key": "canary"}}],
                "installed": [{"message": "workflow saved"}],
            }
        )
    )
    assert seen.run is not None


@pytest.mark.asyncio(loop_scope="module")
async def test_cases_do_not_see_what_others_wrote(deployment: Deployment) -> None:
    for _ in range(2):
        seen = await deployment.run(case({"status": "executed"}))
        assert len(seen.documents) == 1


@pytest.mark.parametrize(
    ("seen", "expected"),
    [(1, True), (1, 1.0), ("x", "<id>"), ("x", "<date>"), ("x", "<text y>"), ([1], [1, 2])],
)
def test_values_that_differ_are_not_the_same(seen: Any, expected: Any) -> None:
    with pytest.raises(AssertionError):
        assert_same({"a": seen}, {"a": expected}, "here")


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (None, "<any>"),
        ("65f000000000000000000001", "<id>"),
        ("2024-05-01T10:00:00", "<date>"),
        ("a text", "<text ^a t>"),
    ],
)
def test_what_no_author_can_know_is_left_open(seen: Any, expected: str) -> None:
    assert_has({"a": seen, "b": 1}, {"a": expected}, "here")
    assert_items([{"a": seen}], [{"a": expected}], "here")


@pytest.mark.parametrize(
    "text",
    [
        "spec: 1 x\nexpect: {state: {}}\nsurplus: 1\n",
        "spec: 1 x\nexpect: {statte: {}}\n",
        "spec: 1 x\nrun: {workflow: flow}\n",
        "spec: 1 x\nvector: {position: nowhere, source: a, value: a}\n",
    ],
)
def test_a_case_with_a_word_that_nobody_reads_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "cases").mkdir()
    (tmp_path / "cases" / "one.yaml").write_text(text)
    with pytest.raises(ValueError, match="1 x"):
        load_cases("cases", tmp_path)
