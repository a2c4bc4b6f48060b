import pytest
from hypothesis import given
from hypothesis import strategies as st

from cranekit.units import UnitError, format_memory, format_time_limit, parse_count, parse_memory, parse_time_limit


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 1_800),
        ("1:30", 90),
        ("90:00", 5_400),
        ("01:02:03", 3_723),
        ("100:00:00", 360_000),
        ("2-3", 183_600),
        ("2-03:30", 185_400),
        ("1-00:00:01", 86_401),
        ("0", 0),
    ],
)
def test_times_as_slurm_reads_them(text: str, seconds: int) -> None:
    assert parse_time_limit(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1:60", "1:00:60", "1-24", "1:2:3:4", "1-", "-", "1.5", "1h", "٣", "9" * 16])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UnitError, match="time"):
        parse_time_limit(text)


@given(st.integers(0, 10**9))
def test_a_written_time_reads_back(seconds: int) -> None:
    assert parse_time_limit(format_time_limit(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512", 512 << 20),
        ("512M", 512 << 20),
        ("4G", 4 << 30),
        ("4GiB", 4 << 30),
        ("4gb", 4 << 30),
        ("1k", 1 << 10),
        ("2T", 2 << 40),
    ],
)
def test_memory(text: str, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1G", "1.5G", "4X", "1GG", "9" * 16])
def test_what_is_no_memory(text: str) -> None:
    with pytest.raises(UnitError, match="memory"):
        parse_memory(text)


@given(st.integers(0, 10**12))
def test_written_memory_reads_back(kibibytes: int) -> None:
    assert parse_memory(format_memory(kibibytes * 1024)) == kibibytes * 1024


def test_counts() -> None:
    assert parse_count("12") == 12
    assert parse_count("2k") == 2_048
    assert parse_count("0", least=0) == 0
    for text in ("0", "-1", "x", "1.0", ""):
        with pytest.raises(UnitError):
            parse_count(text)


@pytest.mark.parametrize("amount", [-1, -86_400])
def test_nothing_below_zero_is_written(amount: int) -> None:
    with pytest.raises(UnitError):
        format_time_limit(amount)
    with pytest.raises(UnitError):
        format_memory(amount)
