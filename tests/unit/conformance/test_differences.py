"""The page of differences as the conformance comparison reads it."""

from collections import Counter

import pytest

from tests.conformance.comparison import UNSET, Row, rows_of
from tests.conformance.differences import PAGE, PageError, anchor_of, read, reason_for

TABLE = """# Title

## Exit codes, of srun

Words.

| comparison | Slurm | here |
|---|---|---|
| `*/exit code` | `182` | `1` |
| `nodes/*` | `cn[01-02]` | `*` |
| `piped` | `a\\|b` | `-` |
"""


def test_sections_give_the_anchors() -> None:
    differences = read(TABLE)
    assert {difference.anchor for difference in differences} == {"exit-codes-of-srun"}
    assert [difference.row for difference in differences] == ["*/exit code", "nodes/*", "piped"]


@pytest.mark.parametrize(
    ("row", "documented"),
    [
        (Row("Prolog fails/exit code", "182", "1"), True),
        (Row("Prolog fails/exit code", "182", "2"), False),
        (Row("Prolog fails/exit code", "0", "1"), False),
        (Row("exit code", "182", "1"), False),
        (Row("nodes/all", "cn[01-02]", "anything"), True),
        (Row("nodes/all", "cn0", "anything"), False),
        (Row("piped", "a|b", "-"), True),
    ],
)
def test_only_exactly_these_answers_are_documented(row: Row, documented: bool) -> None:
    assert (reason_for(row, read(TABLE)) is not None) is documented


def test_what_accounted_for_a_row_is_noted() -> None:
    differences = read(TABLE)
    reason_for(Row("piped", "a|b", "-"), differences)
    assert [difference.was_seen for difference in differences] == [False, False, True]


@pytest.mark.parametrize("text", ["| `row` | `1` | `2` |", "## Section\n| `row` | 1 | `2` |"])
def test_a_bad_row_is_an_error(text: str) -> None:
    with pytest.raises(PageError):
        read(text)


def test_anchors_are_those_of_renderers() -> None:
    assert anchor_of("Ctrl-C during SrunProlog ends the step") == "ctrl-c-during-srunprolog-ends-the-step"
    assert anchor_of("crun's hooks, again") == "cruns-hooks-again"


def test_rows_have_all_keys_of_both() -> None:
    assert rows_of("x", {"a": "1", "b": "2"}, {"b": "2", "c": "3"}) == [
        Row("x/a", "1", UNSET), Row("x/b", "2", "2"), Row("x/c", UNSET, "3"),
    ]  # fmt: skip


def test_the_page_can_be_read() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert read(text)
    headings = Counter(line for line in text.splitlines() if line.startswith("## "))
    assert max(headings.values()) == 1
    assert Counter((one.row, one.slurm, one.here) for one in read(text)).most_common(1)[0][1] == 1
