"""What the README shows is what happens."""

import difflib
import os
import re
import subprocess
import sys
from pathlib import Path

from cranekit.rpc.credentials import identity_of_peer

ROOT = Path(__file__).parents[2]
HOOKCTL = str(Path(sys.executable).with_name("hookctl"))


def shape(story: str, user: str) -> list[str]:
    """The lines without what differs between runs, hosts and users, sorted, for things that happen at the same time."""
    story = re.sub(rf"\b{re.escape(user)}\b", "USER", story)
    story = re.sub(r"/\S*crane-demo-\w+", "/DEMO", story)
    lines = [re.sub(r"\d+(\.\d+)?( ms| s\b)?", "0", " ".join(line.split())) for line in story.splitlines()]
    return sorted(line for line in lines if line)


def headings(story: str) -> list[str]:
    return [line.strip() for line in story.splitlines() if re.match(r"\d\. |  \$ ", line)]


def test_demo_prints_what_the_readme_shows() -> None:
    shown = re.search(r"^```text\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert shown is not None
    result = subprocess.run([HOOKCTL, "demo"], capture_output=True, text=True, timeout=110, check=True)
    assert headings(shown[1]) == headings(result.stdout)
    there, here = shape(shown[1], "root"), shape(result.stdout, identity_of_peer(os.geteuid(), os.getegid()).user)
    similarity = difflib.SequenceMatcher(None, there, here, autojunk=False).ratio()
    # What waits for what, and so is told at all, may differ by a line or two.
    assert similarity > 0.85, "\n".join(difflib.unified_diff(there, here, "README", "demo", lineterm=""))


def test_links_lead_somewhere() -> None:
    pages = [
        ROOT / "README.md",
        ROOT / "examples" / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").rglob("*.md")),
    ]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not broken


def test_sources_that_the_architecture_names_exist() -> None:
    named = re.findall(r"`(\w+/[\w/]+\.py)`", (ROOT / "docs" / "architecture.md").read_text())
    assert len(named) > 5
    roots = [ROOT / root for root in ("kit", "hooks", "ctld", "craned", "supervisor", "cli")]
    assert [name for name in named if not any((root / name).exists() for root in roots)] == []
