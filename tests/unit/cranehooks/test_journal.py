import asyncio
import json
import random
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cranehooks.journal import Journal, JournalBusyError, JournalWriteError, Record, decode, encode

RECORDS: list[Record] = [{"kind": "event", "n": n, "text": "ä\n" * n} for n in range(5)]
FILE = b"".join(map(encode, RECORDS))


@given(st.lists(st.dictionaries(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists), max_size=3)))
def test_what_is_encoded_is_decoded(records: list[Record]) -> None:
    reading = decode(b"".join(map(encode, records)))
    assert list(reading.records) == records
    assert not reading.torn_bytes
    assert not reading.damage


def test_a_file_cut_at_any_byte_holds_the_whole_records_before_it() -> None:
    for length in range(len(FILE) + 1):
        reading = decode(FILE[:length])
        assert list(reading.records) == RECORDS[: len(reading.records)]
        assert reading.end + reading.torn_bytes == length
        assert not reading.damage
        assert reading.end == sum(len(encode(record)) for record in reading.records)


def test_a_flipped_byte_is_reported_and_hides_its_neighbours_at_most() -> None:
    flips = random.Random(7)
    for offset in range(len(FILE)):
        data = bytearray(FILE)
        data[offset] ^= flips.randrange(1, 256)
        reading = decode(bytes(data))
        assert reading.damage or reading.torn_bytes, offset
        assert all(record in RECORDS for record in reading.records), offset
        assert len(reading.records) >= len(RECORDS) - 2, offset


async def test_appended_records_are_there_when_it_is_opened_again(tmp_path: Path) -> None:
    journal, reading = Journal.open(tmp_path / "journal")
    assert reading.records == ()
    async with asyncio.TaskGroup() as group:
        for record in RECORDS:
            group.create_task(journal.append([record]))
    journal.close()
    journal, reading = Journal.open(tmp_path / "journal")
    journal.close()
    assert list(reading.records) == RECORDS


async def test_a_torn_tail_is_cut_off_and_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(FILE[:-3])
    journal, reading = Journal.open(path)
    assert reading.torn_bytes == len(encode(RECORDS[-1])) - 3
    await journal.append([{"kind": "next"}])
    journal.close()
    assert list(decode(path.read_bytes()).records) == [*RECORDS[:-1], {"kind": "next"}]


async def test_a_damaged_file_is_kept_aside(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    damaged = FILE[:30] + b"?" + FILE[31:]
    path.write_bytes(damaged)
    journal, reading = Journal.open(path)
    journal.close()
    assert str(reading.damage[0]).startswith(f"{len(encode(RECORDS[0]))} bytes at offset 0: checksum")
    assert (tmp_path / "journal.damaged").read_bytes() == damaged


async def test_only_one_opener(tmp_path: Path) -> None:
    journal, _ = Journal.open(tmp_path / "journal")
    with pytest.raises(JournalBusyError):
        Journal.open(tmp_path / "journal")
    await journal.rewrite(RECORDS)
    with pytest.raises(JournalBusyError):
        Journal.open(tmp_path / "journal")
    journal.close()


async def test_rewriting_replaces_everything_and_appending_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal, _ = Journal.open(path)
    await journal.append(RECORDS)
    await journal.rewrite([{"kind": "snapshot"}])
    await journal.append([{"kind": "after"}])
    assert journal.size_bytes == path.stat().st_size
    journal.close()
    assert list(decode(path.read_bytes()).records) == [{"kind": "snapshot"}, {"kind": "after"}]


async def test_a_full_disk_loses_nothing_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal, _ = Journal.open(path)
    await journal.append([{"n": 1}])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.size_bytes + 5, limits[1]))
    try:
        with pytest.raises(JournalWriteError, match="File too large"):
            await journal.append([{"n": 2}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    await journal.append([{"n": 3}])
    journal.close()
    assert decode(path.read_bytes()).records == ({"n": 1}, {"n": 3})


def test_a_line_is_plain_text() -> None:
    line = encode({"a": "\n"})
    assert line.count(b"\n") == 1
    assert json.loads(line[18:]) == {"a": "\n"}
