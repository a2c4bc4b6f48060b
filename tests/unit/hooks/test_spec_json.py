"""What a daemon and its spawner say to each other arrives as it was said."""

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cranehooks.execution import framing, spec_json
from cranehooks.execution import spawner_messages as messages
from cranehooks.execution.framing import FrameBuffer, FrameError, frame
from cranehooks.model.outcome import Outcome
from cranehooks.model.run import HookKey, HookRun, RunSpec, ScriptRun, ScriptStarted

# With lone surrogates: the bytes of an environment need not be text.
TEXT = st.text(st.characters(exclude_characters="\0"), max_size=8)
st.register_type_strategy(str, TEXT)
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))

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


def test_every_field_is_carried() -> None:
    """A field that is added to the model and not here would be lost in silence where it has a default."""
    for model, encode, strategy in (
        (RunSpec, spec_json.encode_spec, SPECS),
        (HookRun, spec_json.encode_run, RUNS),
        (ScriptRun, spec_json.encode_script, st.builds(ScriptRun)),
        (ScriptStarted, spec_json.encode_started, st.builds(ScriptStarted)),
    ):

        @given(strategy)
        def check(value: Any, encode: Any = encode, model: Any = model) -> None:  # Any: one of the four
            assert encode(value).keys() == {field.name for field in dataclasses.fields(model)}

        check()
    assert len(dataclasses.fields(HookKey)) == 6
    assert len(dataclasses.fields(Outcome)) == 3


MESSAGES = st.one_of(
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


@given(st.lists(st.binary(max_size=20), max_size=6), st.integers(1, 7))
def test_frames_may_arrive_in_pieces(payloads: list[bytes], size: int) -> None:
    stream = b"".join(map(frame, payloads))
    buffer, received = FrameBuffer(), []
    for start in range(0, len(stream), size):
        received += list(buffer.feed(stream[start : start + size]))
    assert received == payloads


def test_what_is_no_frame_is_an_error() -> None:
    with pytest.raises(FrameError, match="type 9, expected 1"):
        framing.payload_bytes(framing.HEADER.pack(3, 9))
    with pytest.raises(FrameError, match="expected at most"):
        framing.payload_bytes(framing.HEADER.pack(framing.MAX_PAYLOAD_BYTES + 1, 1))
    with pytest.raises(ValueError, match="unknown message 'Nonsense'"):
        messages.decode(b'{"type":"Nonsense"}')


@given(RUNS)
def test_a_report_tells_the_scripts_one_by_one(run: HookRun) -> None:
    *ended, finished = messages.report(run)
    assert isinstance(finished, messages.RunFinished)
    scripts = tuple(message.script for message in ended if isinstance(message, messages.ScriptEnded))
    assert dataclasses.replace(finished.run, scripts=scripts) == run
