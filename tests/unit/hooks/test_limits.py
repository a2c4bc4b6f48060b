"""Bounds are checked where they are made, and say what they bound."""

import pytest

from cranehooks.model.limits import Device, DeviceKind, DeviceRules, LimitKind, Limits, words


def test_no_limit_bounds_nothing() -> None:
    assert Limits().kinds == frozenset()
    assert Limits(measures_memory=True).kinds == frozenset()


def test_what_is_bounded_is_named_in_one_order() -> None:
    limits = Limits(
        memory_bytes=1,
        swap_bytes=0,
        cpu_cores=0.5,
        cpu_weight=1,
        pids=1,
        cpuset="0",
        io_weight=10_000,
        devices=DeviceRules(),
    )
    assert limits.kinds == frozenset(LimitKind)
    assert words(limits.kinds) == ("memory", "swap", "cpu", "cpu weight", "pids", "cpuset", "io weight", "devices")


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("memory_bytes", 0, "limit memory_bytes is 0, expected at least 1"),
        ("swap_bytes", -1, "limit swap_bytes is -1, expected at least 0"),
        ("pids", 0, "limit pids is 0, expected at least 1"),
        ("cpu_cores", 0.0, "limit cpu_cores is 0.0, expected more than 0"),
        ("cpu_weight", 0, "limit cpu_weight is 0, expected 1 to 10000"),
        ("io_weight", 10_001, "limit io_weight is 10001, expected 1 to 10000"),
        ("cpuset", " ", "limit cpuset is empty, expected CPUs such as 0-3,8"),
    ],
)
def test_a_number_out_of_range_is_refused(field: str, value: object, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Limits(**{field: value})  # type: ignore[arg-type]


def test_a_device_is_written_as_the_kernel_writes_it() -> None:
    assert str(Device(DeviceKind.CHARACTER, 195, 0)) == "c 195:0"
    assert str(Device(DeviceKind.BLOCK, 8)) == "b 8:*"


def test_limits_are_told_to_people() -> None:
    limits = Limits(memory_bytes=1 << 30, swap_bytes=0, cpu_cores=1.5, cpu_weight=50, pids=4096, io_weight=10)
    assert str(limits) == "1024 MiB of memory, no swap, 1.5 CPUs, CPU weight 50, 4096 processes, I/O weight 10"
    assert str(Limits(swap_bytes=1 << 20)) == "1 MiB of swap"
