"""How single values are written."""

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cranehooks.settings.values import (
    beside,
    parse_address,
    parse_gres,
    parse_listen,
    parse_names,
    parse_patterns,
    parse_script_limit,
    parse_size,
    parse_time_limit,
    split_host_port,
)


@pytest.mark.parametrize(
    ("parse", "value", "expected"),
    [
        (parse_time_limit, 90, 90.0),
        (parse_time_limit, "90", 90.0),
        (parse_time_limit, "1:30", 90.0),
        (parse_time_limit, "01:00:00", 3600.0),
        (parse_time_limit, "2-12", 216000.0),
        (parse_time_limit, "1-00:00:01", 86401.0),
        (parse_time_limit, "unlimited", None),
        (parse_size, 5, 5),
        (parse_size, "8G", 8 << 30),
        (parse_size, "512 MiB", 512 << 20),
        (parse_size, "1kb", 1024),
        (parse_address, "localhost:1", "localhost:1"),
        (parse_address, "127.1.2.3:10", "127.1.2.3:10"),
        (parse_address, "[::1]:10", "[::1]:10"),
        (parse_address, "unix:/run/{name}.sock", "unix:/run/{name}.sock"),
        (parse_listen, "0.0.0.0:0", "0.0.0.0:0"),
        (parse_listen, "", None),
        (parse_listen, None, None),
        (parse_patterns, "a.sh, b.d/*,,", ("a.sh", "b.d/*")),
        (parse_patterns, ["a.sh", "b.sh,c.sh"], ("a.sh", "b.sh", "c.sh")),
        (parse_patterns, "", ()),
        (parse_gres, "gpu:4, nic:x:1", "gpu:4,nic:x:1"),
        (parse_gres, "", ""),
        (parse_names, "ann, bob", ("ann", "bob")),
        (parse_names, ["ann", 1000], ("ann", "1000")),
        (parse_script_limit, 3, 3),
        (parse_script_limit, "AUTO", None),
    ],
)
def test_taken(parse: Callable[[object], object], value: object, expected: object) -> None:
    assert parse(value) == expected


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        (parse_time_limit, 0),
        (parse_time_limit, "0:00"),
        (parse_time_limit, True),
        (parse_time_limit, "1:2:3:4"),
        (parse_size, -1),
        (parse_size, "8X"),
        (parse_size, True),
        (parse_size, 1.5),
        (parse_address, "cn01:10"),
        (parse_address, "127.0.0.1:70000"),
        (parse_address, "::1:10"),
        (parse_address, "unix:relative"),
        (parse_address, "unix:/" + "x" * 107),
        (parse_address, "unix:/a\nb"),
        (parse_address, 5),
        (parse_listen, ":80"),
        (parse_listen, 80),
        (parse_patterns, None),
        (parse_patterns, [["a"]]),
        (parse_patterns, "a\0b"),
        (parse_patterns, {"a": 1}),
        (parse_gres, "gpu"),
        (parse_gres, 4),
        (parse_names, [True]),
        (parse_names, {"a": 1}),
        (parse_script_limit, -1),
        (parse_script_limit, True),
    ],
)
def test_refused(parse: Callable[[object], object], value: object) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse(value)


@given(st.from_regex(r"[a-z]{1,9}", fullmatch=True), st.integers(0, 65535))
def test_split_host_port(host: str, port: int) -> None:
    assert split_host_port(f"{host}:{port}") == (host, port)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@pytest.mark.parametrize(
    "parse",
    [parse_address, parse_gres, parse_listen, parse_names, parse_patterns, parse_script_limit, parse_size, parse_time_limit],
)
def test_parsers_fail_only_with_value_errors(parse: Callable[[object], object]) -> None:
    @given(ANYTHING)
    def check(value: object) -> None:
        with contextlib.suppress(ValueError):
            parse(value)

    check()


def test_beside() -> None:
    assert beside("/etc/crane", "a/b.sh") == "/etc/crane/a/b.sh"
    assert beside("/etc/crane", "/abs/b.sh") == "/abs/b.sh"
