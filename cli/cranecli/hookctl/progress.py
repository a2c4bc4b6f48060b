"""One line on a terminal that says what is being done, and leaves no trace."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_line() -> Iterator[Callable[[str], None]]:
    """Yields what shows a text in place of the last one; an empty text removes it. Elsewhere than on a terminal it does nothing."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return

    def show(text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}{' …' if text else ''}")
        sys.stderr.flush()

    try:
        yield show
    finally:
        show("")
