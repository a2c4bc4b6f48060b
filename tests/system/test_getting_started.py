"""The tutorial's commands, run as a reader would run them, print what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "getting-started.md"
_BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def words(line: str) -> str:
    """Blanks and numbers aside, for lines of tables and times."""
    return re.sub(r"\s+", " ", line).strip()


def shows(output: str, line: str) -> bool:
    """Whether one line of the output holds the words of `line` in their order; columns in between may be left out."""
    pattern = ".*".join(re.escape(part) for part in re.split(r"\s{2,}", line.strip()))
    return any(re.search(pattern, words(shown)) for shown in output.splitlines())


def test_commands_do_what_the_page_says(tmp_path: Path) -> None:
    blocks = _BLOCK.findall(PAGE.read_text())
    scripts = [text for kind, text in blocks if kind == "sh"]
    expected = [line for kind, text in blocks if kind == "text" for line in text.splitlines()]
    assert len(scripts) > 4
    assert len(expected) > 10
    (tmp_path / "first.sh").write_text(scripts[0])
    (tmp_path / "inside.sh").write_text("\n".join(scripts[1:]))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "150"}
    output = ""
    for command in (["bash", "-e", "first.sh"], ["hookctl", "local", "--config", "site.yaml", "--", "bash", "inside.sh"]):
        result = subprocess.run(
            command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=100, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stdout
        output += result.stdout
    missing = [line for line in expected if not shows(output, line)]
    assert not missing, output
