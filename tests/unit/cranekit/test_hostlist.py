"""Hostlists: what they stand for, how they are written, and what is said of those that are none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cranekit.errors import CraneError, ErrorCode
from cranekit.hostlist import MAX_NAMES, HostlistError, expand, fold, fold_in_order

host_names = st.from_regex(r"[a-z][a-z0-9.-]{0,6}[a-z0-9]?", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []),
        ("  ", []),
        ("cn1", ["cn1"]),
        ("cn[01-03,20]", ["cn01", "cn02", "cn03", "cn20"]),
        ("gpu[1-2]x[1-3]", ["gpu1x1", "gpu1x2", "gpu1x3", "gpu2x1", "gpu2x2", "gpu2x3"]),
        ("cn[08-11]", ["cn08", "cn09", "cn10", "cn11"]),
        ("cn[8-11]", ["cn8", "cn9", "cn10", "cn11"]),
        ("a, b ,c[1-2]-ib.example", ["a", "b", "c1-ib.example", "c2-ib.example"]),
        ("[1-2]", ["1", "2"]),
        ("a,b,a", ["a", "b"]),
        ("n[3,1]", ["n3", "n1"]),
        ("n[0-2]", ["n0", "n1", "n2"]),
    ],
)
def test_expand(text: str, names: list[str]) -> None:
    assert expand(text) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cn[1-", "[ without ] at column 3"),
        ("cn[1-2", "[ without ] at column 3"),
        ("cn[", "[ without ] at column 3"),
        ("cn[]", "expected a number, not ']' at column 4"),
        ("cn[1,]", "expected a number, not ']' at column 6"),
        ("cn[a]", "expected a number, not 'a' at column 4"),
        ("cn[1_2]", "expected a comma, a dash or ], not '_' at column 5"),
        ("cn[3-1]", "the range 3-1 ends before it begins at column 4"),
        ("cn[01-003]", "the ends of the range 01-003 are padded differently at column 4"),
        ("cn1]", "expected a comma or the end, not ']' at column 4"),
        ("a,,b", "expected a name, not ',' at column 3"),
        ("a,", "expected a name, not the end at column 3"),
        ("a b", "expected a comma or the end, not 'b' at column 3"),
        ("$(x)", "expected a name, not '$' at column 1"),
        ("cn[1-100001]", "more than 100000 names at column 4"),
        ("a,cn[1-1000]x[1-1000]", "more than 100000 names at column 3"),
        ("cn[1-9999999999999999999]", "a number of more than 18 digits at column 6"),
    ],
)
def test_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(HostlistError) as caught:
        expand(text)
    assert str(caught.value) == message
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    assert isinstance(caught.value, CraneError)
    assert isinstance(caught.value, ValueError)


def test_the_bound_itself_is_allowed() -> None:
    assert len(expand(f"cn[1-{MAX_NAMES}]")) == MAX_NAMES


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["login"], "login"),
        (["cn1"], "cn1"),
        (["cn01", "cn02", "cn03", "cn20"], "cn[01-03,20]"),
        (["cn09", "cn10", "cn11"], "cn[09-11]"),
        (["cn10", "cn09", "cn08"], "cn[08-10]"),
        (["cn9", "cn10"], "cn[9-10]"),
        (["b1", "a", "b2"], "b[1-2],a"),
        (["cn1", "cn1"], "cn1"),
        (["cn1", "cn01"], "cn1,cn01"),
        (["n1-ib", "n2-ib"], "n[1-2]-ib"),
        (["r1n1", "r1n2", "r2n1"], "r1n[1-2],r2n1"),
        (["n0", "n1"], "n[0-1]"),
    ],
)
def test_fold(names: list[str], text: str) -> None:
    assert fold(names) == text


@given(st.lists(host_names, max_size=40))
def test_fold_keeps_the_names(names: list[str]) -> None:
    assert sorted(expand(fold(names))) == sorted(set(names))


@given(st.sets(st.integers(0, 2000), min_size=1), st.integers(0, 5))
def test_fold_keeps_ranges_and_padding(numbers: set[int], width: int) -> None:
    names = [f"cn{number:0{width}}" for number in numbers]
    assert sorted(expand(fold(names))) == sorted(names)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["cn01", "cn02", "cn03", "gpu"], "cn[01-03],gpu"),
        (["cn02", "cn01"], "cn[02,01]"),
        (["cn08", "cn09", "cn10", "cn9"], "cn[08-10,9]"),
        (["a1", "b1", "a2"], "a1,b1,a2"),
        (["n9", "n10", "n99", "n100"], "n[9-10,99-100]"),
        (["r1-ib", "r2-ib", "r3"], "r[1-2]-ib,r3"),
    ],
)
def test_fold_in_order(names: list[str], text: str) -> None:
    assert fold_in_order(names) == text
    assert expand(text) == names


@given(st.lists(host_names | st.from_regex(r"n[0-9]{1,3}(-ib)?", fullmatch=True), max_size=40, unique=True))
def test_fold_in_order_keeps_the_order(names: list[str]) -> None:
    assert expand(fold_in_order(names)) == names


@given(st.sets(st.integers(0, 2000), min_size=1), st.integers(0, 5))
def test_in_order_a_sorted_list_is_as_short(numbers: set[int], width: int) -> None:
    names = [f"n{number:0{width}}" for number in sorted(numbers)]
    assert len(fold_in_order(names)) <= len(fold(names))


@given(st.text(alphabet="ab01[]-,. ", max_size=30))
def test_any_text_is_a_hostlist_or_an_error(text: str) -> None:
    try:
        names = expand(text)
    except HostlistError as error:
        column: int | None = error.column
        names = []
    else:
        column = None
    assert column is None or 1 <= column <= len(text) + 1
    assert sorted(expand(fold(names))) == sorted(names)
