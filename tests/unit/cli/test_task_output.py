from hypothesis import given
from hypothesis import strategies as st

from cranecli.step.output import LONGEST_HELD_BYTES, LineAssembly

PIECES = st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=12).map(lambda raw: raw.replace(b"x", b"\n"))), max_size=40)
TEXTS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([b"a", b"bb\n", b"c\nd", b"\n", b"\r", b"e\r\nf\n"])), max_size=40)


@given(PIECES)
def test_a_single_tasks_bytes_pass_at_once_and_unchanged(pieces: list[tuple[int, bytes]]) -> None:
    lines = LineAssembly(1, is_labelled=False)
    for _, data in pieces:
        assert lines.feed(0, data) == data
    assert lines.end_all() == b""


@given(TEXTS)
def test_every_line_comes_out_whole_with_the_label_of_its_task(pieces: list[tuple[int, bytes]]) -> None:
    lines = LineAssembly(4, is_labelled=True)
    out = b"".join(lines.feed(task, data) for task, data in pieces) + lines.end_all()
    written: dict[int, list[bytes]] = {task: [] for task in range(4)}
    parts = out.split(b"\n")
    assert parts[-1] == b"" or parts[-1][1:3] == b": "
    for line in parts[:-1] + ([parts[-1]] if parts[-1] else []):
        assert line[1:3] == b": "
        written[int(line[:1])].append(line[3:])
    for task in range(4):
        text = b"".join(data for owner, data in pieces if owner == task)
        expected = text.split(b"\n")
        assert written[task] == (expected[:-1] if expected[-1] == b"" else expected)


@given(TEXTS)
def test_without_labels_nothing_but_closing_newlines_is_added(pieces: list[tuple[int, bytes]]) -> None:
    lines = LineAssembly(4, is_labelled=False)
    out = b"".join(lines.feed(task, data) for task, data in pieces) + lines.end_all()
    given_lines = [
        line for task in range(4) for line in b"".join(data for owner, data in pieces if owner == task).split(b"\n") if line
    ]
    assert sorted(line for line in out.split(b"\n") if line) == sorted(given_lines)


def test_a_line_is_held_until_it_is_complete() -> None:
    lines = LineAssembly(2, is_labelled=False)
    assert lines.feed(0, b"half") == b""
    assert lines.feed(1, b"other\n") == b"other\n"
    assert lines.feed(0, b" done\nnext") == b"half done\n"
    assert lines.end(0) == b"next"
    assert lines.end(0) == b""


def test_a_very_long_line_is_passed_on_and_closed_before_anothers() -> None:
    lines = LineAssembly(2, is_labelled=True)
    long = b"x" * (LONGEST_HELD_BYTES + 1)
    assert lines.feed(0, long) == b"0: " + long
    assert lines.feed(0, b"tail") == b""
    assert lines.feed(1, b"one\n") == b"\n1: one\n"
    assert lines.feed(0, b"\n") == b"0: tail\n"


def test_labels_are_as_wide_as_the_largest() -> None:
    lines = LineAssembly(12, is_labelled=True)
    assert lines.feed(3, b"a\n") + lines.feed(11, b"b\n") == b" 3: a\n11: b\n"
