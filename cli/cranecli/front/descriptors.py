"""The three standard descriptors, held where the caller has closed them, so that no socket of a front end gets their numbers."""

from __future__ import annotations

import os
import sys


def hold_standard_descriptors() -> None:
    """Puts /dev/null in the place of what is closed: there is nothing to read, and nobody sees what is written. Safe to repeat."""
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        # Programs that are started from here get it as well.
        os.set_inheritable(descriptor, True)
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
    # Python has None for a stream that was closed when it started.
    sys.stdin = sys.stdin or os.fdopen(0, "r", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
