"""Acting as the user, and being ourselves again."""

import os
from pathlib import Path

import pytest

from cranehooks.model.run import Credentials
from csupervisor.identity import acting_as

NOBODY = Credentials(65534, 65533, (65532, 65533))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as somebody else")
def test_effective_ids_and_groups_are_the_users_for_a_moment() -> None:
    before = os.getresuid(), os.getresgid(), os.getgroups()
    with acting_as(NOBODY):
        assert (os.geteuid(), os.getegid(), sorted(os.getgroups())) == (65534, 65533, [65532, 65533])
        # The real and saved ids keep the user from signalling us.
        assert (os.getresuid()[0], os.getresuid()[2]) == (0, 0)
        with pytest.raises(PermissionError):
            next(Path("/proc/1/fd").iterdir())
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before


def test_acting_as_oneself_changes_nothing() -> None:
    before = os.getresuid()
    with acting_as(Credentials(os.geteuid(), os.getegid())):
        assert os.getresuid() == before
