"""The kinds of events: those that are told are those that can be asked for."""

import re
from pathlib import Path

from cranectld import history

SOURCES = Path(history.__file__).parent
_TOLD = re.compile(r'\b(?:Record|record)\(\s*"([a-z]+)"|history\.add\([^"]*"([a-z]+)"')


def test_every_kind_that_is_told_can_be_asked_for_and_no_other() -> None:
    texts = [path.read_text() for path in SOURCES.rglob("*.py")]
    told = {first or second for text in texts for first, second in _TOLD.findall(text)}
    assert told == set(history.EVENT_KINDS)
