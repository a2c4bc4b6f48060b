"""The grammar of TaskProlog's output."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cranehooks.directives import MAX_VARIABLE_BYTES, Directive, Export, Print, Unset, apply, parse

GOLDEN: list[tuple[bytes, list[Directive]]] = [
    (b"export A=1\n", [Export("A", "1")]),
    (b"export A=1", [Export("A", "1")]),
    (b"export A=\n", [Export("A", "")]),
    (b"export   A=1\n", [Export("A", "1")]),
    (b"export A =1\n", [Export("A", "1")]),
    (b"export A= 1 \n", [Export("A", " 1 ")]),
    (b'export A="a b" $X `c` \\n;\n', [Export("A", '"a b" $X `c` \\n;')]),
    (b"export A=x=y\n", [Export("A", "x=y")]),
    (b"export A=1\r\n", [Export("A", "1\r")]),
    (b"export A=caf\xc3\xa9\xff\n", [Export("A", "café\udcff")]),
    (b"export A\n", []),
    (b"export 1A=1\n", []),
    (b"export A-B=1\n", []),
    (b"export =1\n", []),
    (b"export A=\0\n", []),
    (b"export\tA=1\n", []),
    (b" export A=1\n", []),
    (b"Export A=1\n", []),
    (b"exportA=1\n", []),
    (b"unset A\n", [Unset("A")]),
    (b"unset  A \r\n", [Unset("A")]),
    (b"unset A B\n", []),
    (b"unset\n", []),
    (b"print hello  world \n", [Print(b"hello  world \n")]),
    (b"print hello", [Print(b"hello\n")]),
    (b"print  indented\n", [Print(b"indented\n")]),
    (b"print \n", [Print(b"\n")]),
    (b"print\n", []),
    (b"print \x00\xff\n", [Print(b"\x00\xff\n")]),
    (b"+ set -x trace\nother\n\n", []),
    (b"export A=1\nexport A=2\nunset B\n", [Export("A", "1"), Export("A", "2"), Unset("B")]),
]


@pytest.mark.parametrize(("output", "directives"), GOLDEN)
def test_parse(output: bytes, directives: list[Directive]) -> None:
    assert parse(output) == directives


def test_the_example_of_the_guide() -> None:
    output = b"export VARIABLE_1=HelloWorld\nunset MANPATH\nprint This message has been printed with TaskProlog\n"
    environment, printed = apply({"MANPATH": "/man", "HOME": "/home/ann"}, parse(output))
    assert environment == {"VARIABLE_1": "HelloWorld", "HOME": "/home/ann"}
    assert printed == b"This message has been printed with TaskProlog\n"


@pytest.mark.parametrize(("excess", "accepted"), [(0, True), (1, False)])
def test_a_variable_that_the_kernel_would_refuse_is_ignored(excess: int, accepted: bool) -> None:
    value = b"x" * (MAX_VARIABLE_BYTES - len(b"A=\0") + excess)
    assert bool(parse(b"export A=" + value)) is accepted


def test_nothing_is_protected_and_later_lines_win() -> None:
    directives = parse(b"export CRANE_JOB_ID=7\nexport A=1\nunset A\nunset A\n")
    assert apply({"CRANE_JOB_ID": "1"}, directives) == ({"CRANE_JOB_ID": "7"}, b"")


def test_apply_leaves_its_input_alone() -> None:
    before = {"A": "1"}
    apply(before, [Unset("A")])
    assert before == {"A": "1"}


@given(st.binary(max_size=2000))
def test_any_bytes_are_accepted(output: bytes) -> None:
    environment, printed = apply({}, parse(output))
    assert all(name.isidentifier() and "\0" not in value for name, value in environment.items())
    assert printed.count(b"\n") <= output.count(b"\n") + 1


LINE = st.binary(max_size=40).map(lambda line: line.replace(b"\n", b""))
NAME = st.from_regex(rb"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)


@given(NAME, LINE.map(lambda line: line.replace(b"\0", b"")))
def test_values_arrive_verbatim(name: bytes, value: bytes) -> None:
    environment, _ = apply({}, parse(b"export " + name + b"=" + value + b"\n"))
    assert environment == {name.decode(): value.decode("utf-8", "surrogateescape")}


@given(st.lists(LINE))
def test_lines_are_independent(lines: list[bytes]) -> None:
    together = parse(b"\n".join(lines))
    assert together == [directive for line in lines for directive in parse(line)]
