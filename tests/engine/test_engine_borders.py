from __future__ import annotations

import threading
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machina.engine.borders import as_json, compact_json, cross_border, freeze, thaw
from machina.expressions import FreeText

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.datetimes()
    | st.dates()
    | st.timedeltas(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["a", "b", "machina:int", "machina:dict", "machina:standing"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None)  # a shared machine is no clock
@given(VALUES)
def test_a_frozen_state_thaws_to_the_same_values(value: Any) -> None:
    state = {"value": value}
    assert thaw(freeze(state)) == state


@settings(deadline=None)  # a shared machine is no clock
@given(VALUES)
def test_a_frozen_state_is_json(value: Any) -> None:
    frozen = freeze({"value": value})
    assert orjson.loads(orjson.dumps(frozen)) == frozen


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ((1, (2,)), [1, [2]]),
        ({3, 1}, [1, 3]),
        ({1: "a"}, {"1": "a"}),
        (MappingProxyType({"a": (1,)}), {"a": [1]}),
        (FreeText("text"), "text"),
        (float("nan"), None),
        (float("-inf"), None),
        ("\ud800", "\ufffd"),
        (2**70, 2**70),
        (-(2**63), -(2**63)),
    ],
)
def test_what_json_lacks_is_kept_as_its_nearest(value: Any, kept: Any) -> None:
    assert thaw(freeze({"value": value})) == {"value": kept}


def test_nesting_without_end_is_cut() -> None:
    value: list[Any] = []
    for _ in range(500):
        value = [value]
    assert thaw(freeze({"value": value}))["value"] is not None


def test_a_result_shows_dates_as_text() -> None:
    state = {
        "naive": datetime.fromisoformat("2026-01-02T03:00:00"),
        "aware": datetime(2026, 1, 2, tzinfo=UTC),
    }
    assert as_json(state | {"day": date(2026, 1, 2), "long": timedelta(hours=1)}) == {
        "naive": "2026-01-02T03:00:00",
        "aware": "2026-01-02T00:00:00+00:00",
        "day": "2026-01-02",
        "long": "1:00:00",
    }


@pytest.mark.parametrize(
    ("state", "leaves"),
    [
        ({}, False),
        ({"n": [[1]] * 1000}, False),
        ({"n": list(range(5000))}, True),
        ({"n": {str(n): {} for n in range(5000)}}, True),
        ({"text": "x" * 300_000}, True),
    ],
)
async def test_work_on_a_large_state_leaves_the_event_loop(
    state: dict[str, Any], leaves: bool
) -> None:
    thread = await cross_border(lambda _: threading.get_ident(), state)
    assert (thread != threading.get_ident()) is leaves


def test_json_for_a_model_is_compact_and_not_escaped() -> None:
    assert compact_json({"city": "São Paulo", "n": [1, 2]}) == '{"city":"São Paulo","n":[1,2]}'
