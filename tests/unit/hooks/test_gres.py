"""Generic resources: counts as texts, and which devices a job gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cranehooks.model.gres import (
    GresCount,
    HeldDevices,
    chosen_devices,
    device_types,
    gres_text,
    held_text,
    parse_gres,
)

TYPES = {"gpu": ("a100", "a100", "v100", "v100"), "nic": ("",)}


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("", ()),
        ("gpu", (GresCount("gpu", "", 1),)),
        ("gpu:2", (GresCount("gpu", "", 2),)),
        ("gpu:a100", (GresCount("gpu", "a100", 1),)),
        ("gpu:a100:2, nic:1", (GresCount("gpu", "a100", 2), GresCount("nic", "", 1))),
        ("gpu:1,gpu:2", (GresCount("gpu", "", 3),)),
    ],
)
def test_reads_counts(text: str, counts: tuple[GresCount, ...]) -> None:
    assert parse_gres(text) == counts
    assert parse_gres(gres_text(counts)) == counts


@pytest.mark.parametrize("text", ["gpu:a:b:1", ":2", "gpu::2", "gpu:0", "gpu:-1", "gpu:a b:1", "gpu:99999999999", "gpu:²"])
def test_says_what_it_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_gres(text)


def test_numbers_the_devices_of_a_name_through_all_types() -> None:
    assert device_types("gpu:a100:2,nic:1,gpu:v100:2") == TYPES
    assert device_types("gpu:a:1,gpu:b:1,gpu:a:1") == {"gpu": ("a", "b", "a")}


def test_a_type_is_served_before_what_takes_any() -> None:
    assert chosen_devices(TYPES, {}, "gpu:1,gpu:a100:2") == (HeldDevices("gpu", (0, 1, 2)),)


def test_an_untyped_request_takes_the_lowest_that_are_free() -> None:
    assert chosen_devices(TYPES, {"gpu": frozenset({0, 2})}, "gpu:2,nic:1") == (
        HeldDevices("gpu", (1, 3)),
        HeldDevices("nic", (0,)),
    )


@pytest.mark.parametrize("wanted", ["gpu:5", "gpu:a100:3", "gpu:h100:1", "fpga:1", "gpu:a100:2,gpu:3"])
def test_too_few_devices_are_none(wanted: str) -> None:
    assert chosen_devices(TYPES, {}, wanted) is None


def test_people_read_ranges() -> None:
    assert held_text([HeldDevices("gpu", (0, 1, 4)), HeldDevices("nic", (0,)), HeldDevices("fpga", ())]) == "gpu:0-1,4 nic:0"


COUNTS = st.lists(
    st.builds(GresCount, st.sampled_from(["gpu", "nic"]), st.sampled_from(["", "a100", "v100"]), st.integers(1, 3)), max_size=3
)


@given(st.lists(COUNTS, max_size=8))
def test_no_device_is_given_twice_and_each_request_gets_what_it_asked_for(requests: list[list[GresCount]]) -> None:
    taken: dict[str, frozenset[int]] = {}
    for counts in requests:
        held = chosen_devices(TYPES, taken, gres_text(counts))
        if held is None:
            continue
        for devices in held:
            assert not taken.get(devices.name, frozenset()) & set(devices.indexes)
            assert len(devices.indexes) == sum(count.count for count in counts if count.name == devices.name)
            for kind in ("a100", "v100"):
                of_kind = sum(TYPES[devices.name][index] == kind for index in devices.indexes)
                assert of_kind >= sum(c.count for c in counts if (c.name, c.type) == (devices.name, kind))
            taken[devices.name] = taken.get(devices.name, frozenset()) | set(devices.indexes)
