"""The demo, as `make demo` runs it: it goes as told, reads well, and leaves nothing behind."""

import re
import subprocess
import sys
from pathlib import Path

HOOKCTL = str(Path(sys.executable).with_name("hookctl"))


def test_demo_goes_as_told_and_leaves_nothing() -> None:
    result = subprocess.run([HOOKCTL, "demo"], capture_output=True, text=True, timeout=110, check=False)
    story = result.stdout
    assert result.returncode == 0, story + result.stderr
    assert result.stderr == ""
    lines = story.splitlines()
    assert len(lines) < 80
    assert max(len(line) for line in lines) <= 100
    assert "\x1b" not in story
    for point in (
        "CranectldProlog", "Prolog", "CrunProlog 0", "TaskProlog 0.0", "--task-prolog 0.0", "--task-epilog 0.0",
        "TaskEpilog 0.0", "CrunEpilog 0", "Epilog", "CranectldEpilog",
    ):  # fmt: skip
        assert re.search(rf" {re.escape(point)} .* ok ", story), point
    assert "the task sees GREETING=HelloFromTaskProlog" in story
    assert "TaskProlog prepared task 0 on cn01" in story
    drained, requeued = story.index("drained: prolog 50-node-health.sh exit 1"), story.index("requeued: ")
    assert drained < requeued < story.index("-- attempt 2 --") < story.index("allocated: attempt 2 on cn02")
    assert re.search(r"cn01 +up, drained", story)
    state_dir = Path(re.sub(r"\s", "", story.split("(", 1)[1].split("/hooks)", 1)[0]))
    assert not state_dir.exists()
