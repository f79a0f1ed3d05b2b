"""The directive's syntax: what is read, and how clearly the rest is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machina.connectors.llm.script import Script, parse_script
from machina.errors import ModelFailed


@pytest.mark.parametrize(
    ("message", "script"),
    [
        ("", Script()),
        ("no directive, only [[brackets]]", Script()),
        ("[[script:]]", Script()),
        ("[[script: ]]", Script()),
        ("Hi [[script: tokens=2  delay_ms=5]] there", Script(tokens=2, delay_ms=5)),
        ("[[script:\ttokens=2\n first_ms=1 ]]", Script(tokens=2, first_ms=1)),
        ("[[script: stall_after=0]]", Script(stall_after=0)),
        ("[[script: text=plain]]", Script(text="plain")),
        ('[[script: text=""]]', Script(text="")),
        ('[[script: text="]] \\"x\\" \\\\ \\n"]]', Script(text=']] "x" \\ \n')),
        ("[[script: error=provider_cut]]", Script(fail_after=0, error="provider_cut")),
        ("[[script: tokens=1000000]]", Script(tokens=1_000_000)),
    ],
)
def test_directive_is_read_when_it_is_well_formed(message: str, script: Script) -> None:
    assert parse_script(message) == script


@pytest.mark.parametrize(
    ("directive", "complaint"),
    [
        ("speed=3]]", "'speed' is unknown; known are tokens"),
        ("tokens=x]]", "tokens must be a whole number from 0 to 1000000, not 'x'"),
        ("tokens=-1]]", "tokens must be a whole number"),
        ("tokens=1.5]]", "tokens must be a whole number"),
        ("tokens=1000001]]", "tokens must be a whole number"),
        ("tokens=99999999999999999999]]", "tokens must be a whole number"),
        ("tokens=٣]]", "tokens must be a whole number"),
        ("delay_ms=600001]]", "delay_ms must be a whole number from 0 to 600000"),
        ("tokens=1 tokens=2]]", "tokens is given twice"),
        ("tokens]]", "expected name=value or ']]' at 'tokens]]'"),
        ("tokens=1", "expected name=value or ']]' at 'tokens=1'"),
        ("tokens=1]", "expected name=value or ']]'"),
        ('text="open]]', "expected name=value or ']]'"),
        ('text="a"tokens=1]]', "expected name=value or ']]'"),
        ("tokens=1 text=a]]", "tokens and text exclude each other"),
        ("fail_after=1 stall_after=2]]", "fail_after and stall_after exclude each other"),
        ("stall_after=2 error=provider_cut]]", "error goes with fail_after, not with stall_after"),
        ("error=oops]]", "error must be one of provider_unauthorized"),
        ("tokens=1]] [[script: tokens=2]]", "there is more than one"),
        ('text="' + "ä" * 40_000 + '"]]', "text is longer than 65536 bytes"),
    ],
)
def test_directive_is_refused_when_it_is_wrong(directive: str, complaint: str) -> None:
    with pytest.raises(ModelFailed) as caught:
        parse_script(f"[[script: {directive}")
    assert complaint in caught.value.message
    assert (caught.value.code, caught.value.retryable) == ("provider_rejected", False)
    assert len(caught.value.message) < 400


@given(st.text(st.sampled_from('tokensx=1 "\\]\n[é'), max_size=60))
def test_any_directive_is_read_or_refused_when_it_is_arbitrary(text: str) -> None:
    code = None
    try:
        parse_script(f"[[script:{text}]]")
    except ModelFailed as failure:
        code = failure.code
    assert code in (None, "provider_rejected")
