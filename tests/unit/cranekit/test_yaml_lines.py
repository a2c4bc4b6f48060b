"""YAML with positions: where things stand, and what is said of files that cannot be used."""

from pathlib import Path

import pytest

from cranekit import yaml_lines
from cranekit.yaml_lines import SettingsError

HOOKS = """\
# A comment
ClusterName: demo
JobLifecycleHook:
  Prolog:
    - /etc/a.sh
    - /etc/b.sh
  PrologTimeout: 30
1: one
"""


def problems_of(text: str | bytes) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        yaml_lines.parse(text, "f.yaml")
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return [str(problem) for problem in caught.value.problems]


def test_data_and_positions(tmp_path: Path) -> None:
    file = tmp_path / "crane.yaml"
    file.write_text(HOOKS)
    loaded = yaml_lines.load(file)
    assert loaded.data == {
        "ClusterName": "demo",
        "JobLifecycleHook": {"Prolog": ["/etc/a.sh", "/etc/b.sh"], "PrologTimeout": 30},
        1: "one",
    }
    assert loaded.file == str(file)
    assert loaded.positions[()] == (2, 1)
    assert loaded.positions["ClusterName",] == (2, 14)
    assert loaded.key_positions["ClusterName",] == (2, 1)
    assert loaded.positions["JobLifecycleHook", "Prolog", 0] == (5, 7)
    assert loaded.positions["JobLifecycleHook", "Prolog", 1] == (6, 7)
    assert loaded.key_positions["JobLifecycleHook", "Prolog"] == (4, 3)
    assert loaded.positions["1",] == (8, 4)


def test_an_empty_file_holds_nothing() -> None:
    loaded = yaml_lines.parse("# nothing\n", "f")
    assert loaded.data is None
    assert loaded.positions == {(): (1, 1)}


def test_aliases_and_merges_stand_where_they_were_written() -> None:
    loaded = yaml_lines.parse("base: &b {x: 1, y: 2}\nother:\n  <<: *b\n  y: 3\n", "f")
    assert loaded.data == {"base": {"x": 1, "y": 2}, "other": {"x": 1, "y": 3}}
    assert loaded.positions["other", "x"] == (1, 14)
    assert loaded.positions["other", "y"] == (4, 6)


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (
            "a: 1\nb: 2\na: 3\nb: 4\n",
            ["f.yaml:3:1: a stands twice: first on line 1", "f.yaml:4:1: b stands twice: first on line 2"],
        ),
        ("a: {x: 1, x: 2}\n", ["f.yaml:1:11: x stands twice: first on line 1"]),
        ("[1, 2]: a\n", ["f.yaml:1:1: a key must be a plain value"]),
        ("a: !!python/object:os.system {}\n", ["f.yaml:1:4: no valid YAML: could not determine a constructor for the tag"]),
        ("a: [1\nb: 2\n", ["f.yaml:2:2: no valid YAML: "]),
        ("a: 1\n---\nb: 2\n", ["f.yaml:2:1: no valid YAML: expected a single document"]),
        ("a: 2026-99-99\n", ["f.yaml:1:1: holds a value that cannot be read: "]),
        (b"a: \xff\n", ["f.yaml:1:1: no valid YAML: "]),
        ("a: \x01\n", ["f.yaml:1:1: no valid YAML: "]),
        ("a: &x [*x]\n", ["f.yaml:1:4: nested deeper than 64 levels"]),
        ("a: &x {<<: *x}\n", ["f.yaml:1:4: nested deeper than 64 levels"]),
        ("[" * 5000, ["f.yaml:1:"]),
    ],
)
def test_what_is_wrong(text: str | bytes, problems: list[str]) -> None:
    found = problems_of(text)
    assert len(found) == len(problems)
    for line, start in zip(found, problems, strict=True):
        assert line.startswith(start)


def test_a_few_aliases_cannot_fill_the_memory() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "more than 200000 values" in problems_of("\n".join(lines))[0]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    with pytest.raises(SettingsError, match="cannot be read: No such file or directory"):
        yaml_lines.load(missing)
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        yaml_lines.load(tmp_path)


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    file.write_bytes(b"#" * (yaml_lines.MAX_FILE_BYTES + 1))
    with pytest.raises(SettingsError, match="larger than 4 MiB"):
        yaml_lines.load(file)
