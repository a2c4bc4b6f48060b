"""Which limits this machine lets a test enforce; tests that need more are skipped visibly."""

import functools
import os

import pytest

from cranehooks.execution.containment.detect import detect
from cranehooks.model.limits import LimitKind


@functools.cache
def offered() -> frozenset[LimitKind]:
    """Those of the driver that craned would choose here."""
    containment, _ = detect(None, f"trial-offers-{os.getpid()}")
    try:
        return containment.offers.enforced
    finally:
        containment.close()


def needs(*kinds: LimitKind) -> pytest.MarkDecorator:
    """Skips a test where one of these limits cannot be enforced."""
    missing = [kind.value for kind in kinds if kind not in offered()]
    return pytest.mark.skipif(bool(missing), reason=f"no limits of {', '.join(missing)} here")
