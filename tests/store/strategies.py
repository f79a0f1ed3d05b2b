"""Random records and queries that meet often: few names, few values, every type."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

unhurried = settings(deadline=None)
"""A shared machine is no clock."""
_START = datetime(2026, 1, 1, tzinfo=UTC)
dates = st.integers(0, 3).map(lambda days: _START + timedelta(days=days, milliseconds=days))
numbers = st.one_of(
    st.integers(-2, 3),
    st.sampled_from((0.5, 1.0, -0.0, 1e300, 2**53, 2.0**53, 2**63 - 1, -(2**63), 0.1 + 0.2)),
)
texts = st.sampled_from(("", "a", "b", "B", "ab", "é", "t0", "u2026", "\0", "a\0b", "z\U0001f600"))
singles = st.one_of(st.none(), st.booleans(), numbers, texts, dates)
values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(singles, st.binary(max_size=2)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(("b", "c", "0")), inner)
    ),
    max_leaves=5,
)
fields = st.sampled_from(("a", "a.b", "a.0", "a.b.c", "d"))
records: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {}, optional={"a": values, "d": values}
)
comparable = st.one_of(st.none(), st.booleans(), numbers, texts, dates)
conditions: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(lambda v: {"$eq": v}, values),
    st.builds(lambda v: {"$ne": v}, values),
    st.builds(lambda o, v: {o: v}, st.sampled_from(("$gt", "$gte", "$lt", "$lte")), comparable),
    st.builds(lambda o, v: {o: v}, st.sampled_from(("$in", "$nin")), st.lists(values, max_size=3)),
    st.builds(lambda v: {"$exists": v}, st.booleans()),
    st.builds(lambda v: {"$regex": v}, st.sampled_from(("a", "^b", "[ab]$", "."))),
    st.builds(lambda v: {"$size": v}, st.integers(0, 2)),
)
