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
    (b"export 1A=1\n", [Export("1A", "1")]),
    (b"export A-B.C=1\n", [Export("A-B.C", "1")]),
    (b"export A B=1\n", [Export("A B", "1")]),
    (b"export BASH_FUNC_hello%%=() {  echo hello; }\n", [Export("BASH_FUNC_hello%%", "() {  echo hello; }")]),
    (b"export \t\v\f\rA\f =1\n", [Export("A", "1")]),
    (b"export =1\n", []),
    (b"export  =1\n", []),
    (b"export A=1\0\nexport B=1\n", [Export("A", "1")]),
    (b"export A\0=1\n", []),
    (b"export\tA=1\n", []),
    (b" export A=1\n", []),
    (b"Export A=1\n", []),
    (b"exportA=1\n", []),
    (b"unset A\n", [Unset("A")]),
    (b"unset  A \r\n", [Unset("A")]),
    (b"unset A B\n", [Unset("A B")]),
    (b"unset A-B\n", [Unset("A-B")]),
    (b"unset\n", []),
    (b"unset  \n", []),
    (b"print hello  world \n", [Print(b"hello  world \n")]),
    (b"print hello", [Print(b"hello\n")]),
    (b"print  indented\n", [Print(b"indented\n")]),
    (b"print \n", []),
    (b"print  \t\n", []),
    (b"print\n", []),
    (b"print a\xff\n", [Print(b"a\xff\n")]),
    (b"print a\x00b\n", [Print(b"a\n")]),
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
def test_a_variable_that_is_too_long_is_ignored(excess: int, accepted: bool) -> None:
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
    for name, value in environment.items():
        # What the kernel can hand over.
        assert name
        assert "=" not in name
        assert "\0" not in name + value
        assert "\n" not in name + value
        assert len(f"{name}={value}".encode("utf-8", "surrogateescape")) < MAX_VARIABLE_BYTES
    assert printed.count(b"\n") <= output.count(b"\n") + 1


LINE = st.binary(max_size=40).map(lambda line: line.replace(b"\n", b""))
NAME = st.binary(min_size=1, max_size=9).map(lambda name: name.translate(None, b"=\n\0").strip(b" \t\r\v\f")).filter(bool)


@given(NAME, LINE.map(lambda line: line.replace(b"\0", b"")))
def test_values_arrive_verbatim(name: bytes, value: bytes) -> None:
    environment, _ = apply({}, parse(b"export " + name + b"=" + value + b"\n"))
    assert environment == {name.decode("utf-8", "surrogateescape"): value.decode("utf-8", "surrogateescape")}


def scanned(output: bytes) -> tuple[dict[bytes, bytes], bytes]:
    """The same grammar, read character by character as Slurm's parser does: a second opinion."""
    environment: dict[bytes, bytes] = {}
    printed = b""
    at = 0
    while at < len(output) and output[at] != 0:
        ends = [found for found in (output.find(b"\n", at), output.find(b"\0", at)) if found >= 0]
        end = min(ends, default=len(output))
        for word in (b"export ", b"unset ", b"print "):
            if not output.startswith(word, at) or at + len(word) > end:
                continue
            start = at + len(word)
            while start < end and output[start : start + 1].isspace():
                start += 1
            if word == b"print ":
                printed += output[start:end] + b"\n" if start < end else b""
                continue
            stop = end if word == b"unset " else output.find(b"=", start, end)
            name_end = stop
            while name_end > start and output[name_end - 1 : name_end].isspace():
                name_end -= 1
            if stop < 0 or name_end <= start:
                continue
            if word == b"unset ":
                environment.pop(output[start:name_end], None)
            else:
                environment[output[start:name_end]] = output[stop + 1 : end]
        at = end + 1 if end < len(output) and output[end] == 10 else len(output)
    return environment, printed


PIECE = st.sampled_from(
    [b"export ", b"unset ", b"print ", b"export", b"=", b"A", b"B", b" ", b"\t", b"\f", b"\r", b"\n", b"\0", b"x=y", b"\xff"]
)


@given(st.lists(PIECE, max_size=40).map(b"".join) | st.binary(max_size=200))
def test_the_grammar_is_that_of_a_second_reader(output: bytes) -> None:
    environment, printed = apply({}, parse(output))
    assert (
        {
            name.encode("utf-8", "surrogateescape"): value.encode("utf-8", "surrogateescape")
            for name, value in environment.items()
        },
        printed,
    ) == scanned(output)


@given(st.lists(LINE.map(lambda line: line.replace(b"\0", b""))))
def test_lines_are_independent(lines: list[bytes]) -> None:
    together = parse(b"\n".join(lines))
    assert together == [directive for line in lines for directive in parse(line)]
