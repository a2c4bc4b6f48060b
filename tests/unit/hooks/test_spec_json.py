"""What a daemon and its spawner say to each other arrives as it was said."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cranehooks.execution import spawner_messages as messages
from cranehooks.execution import spec_json
from cranehooks.model.ids import Attempt, JobId
from cranehooks.model.limits import DeviceRules, Limits
from cranehooks.model.outcome import OK, Outcome
from cranehooks.model.points import HookPoint
from cranehooks.model.run import HookKey, HookRun, RunSpec, ScriptRun, ScriptStarted
from cranekit.frames import MAX_PAYLOAD_BYTES

# With lone surrogates: the bytes of an environment need not be text.
TEXT = st.text(st.characters(exclude_characters="\0"), max_size=8)
st.register_type_strategy(str, TEXT)
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))


def positive(highest: int | None = None) -> st.SearchStrategy[int | None]:
    return st.none() | st.integers(1, highest)


LIMITS = st.builds(
    Limits,
    memory_bytes=positive(),
    swap_bytes=positive(),
    cpu_cores=st.none() | st.floats(0.01, 1000),
    cpu_weight=positive(10_000),
    pids=positive(),
    cpuset=st.none() | st.just("0-3,8"),
    io_weight=positive(10_000),
    devices=st.none() | st.builds(DeviceRules),
    measures_memory=st.booleans(),
)
st.register_type_strategy(Limits, LIMITS)
KEY = HookKey(HookPoint.PROLOG, JobId(1), Attempt(1))
SPECS = st.builds(RunSpec, environment=st.dictionaries(TEXT, TEXT, max_size=3))
RUNS = st.builds(HookRun)


def through_json(data: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    decoded: dict[str, Any] = json.loads(json.dumps(data))  # Any: JSON
    return decoded


@given(SPECS)
def test_specs_survive(spec: RunSpec) -> None:
    assert spec_json.decode_spec(through_json(spec_json.encode_spec(spec))) == spec


@given(RUNS)
def test_runs_survive(run: HookRun) -> None:
    assert spec_json.decode_run(through_json(spec_json.encode_run(run))) == run


@pytest.mark.parametrize(
    ("model", "encode", "value"),
    [
        (RunSpec, spec_json.encode_spec, RunSpec(KEY, (), {}, None)),
        (Limits, spec_json.encode_limits, Limits()),
        (HookRun, spec_json.encode_run, HookRun(KEY, "root", 1.0, 2.0)),
        (ScriptRun, spec_json.encode_script, ScriptRun("/a", OK, 1.0, 2.0)),
        (ScriptStarted, spec_json.encode_started, ScriptStarted(KEY.run_id, 0, "/a", "", 1, 2)),
    ],
)
def test_every_field_is_carried(
    model: type, encode: Callable[[Any], dict[str, Any]], value: object
) -> None:  # Any: of five types
    """A field that is added to the model and not here would be lost in silence where it has a default."""
    assert encode(value).keys() == {field.name for field in dataclasses.fields(model)}
    assert len(dataclasses.fields(HookKey)) == 6
    assert len(dataclasses.fields(Outcome)) == 3


MESSAGES = st.one_of(
    st.builds(messages.ScriptOutput),
    st.builds(messages.Ending),
    st.builds(messages.StartRun, SPECS),
    st.builds(messages.StopRun),
    st.builds(messages.Ready),
    st.builds(messages.ScriptBegan),
    st.builds(messages.ScriptEnded),
    st.builds(messages.RunFinished),
)


@given(MESSAGES)
def test_messages_survive(message: messages.Message) -> None:
    assert messages.decode(messages.encode(message)) == message


def test_what_is_no_message_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown message 'Nonsense'"):
        messages.decode(b'{"type":"Nonsense"}')


@given(RUNS)
def test_a_report_tells_all_of_a_run(run: HookRun) -> None:
    assert _heard(run) == run


def test_no_frame_grows_with_the_output() -> None:
    script = ScriptRun("/a", OK, 1.0, 2.0, output="\0" * 3_000_000)
    run = HookRun(KEY, "root", 1.0, 2.0, scripts=(script, script))
    assert _heard(run) == run
    assert max(len(messages.frame(message)) for message in messages.report(run)) < MAX_PAYLOAD_BYTES


def _heard(run: HookRun) -> HookRun:
    """What a listener makes of the report of a run."""
    scripts: list[ScriptRun] = []
    output = ""
    for message in messages.report(run):
        match message:
            case messages.ScriptOutput(_, text):
                output += text
            case messages.ScriptEnded(_, script):
                scripts.append(dataclasses.replace(script, output=output))
                output = ""
            case messages.RunFinished(heard):
                return dataclasses.replace(heard, scripts=tuple(scripts))
            case _:
                raise AssertionError(message)
    raise AssertionError("a report ends with RunFinished")
