"""Acting as the user for a moment: what is opened or looked up then is judged by the user's rights, not by ours."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from cranehooks.model.run import Credentials


@contextmanager
def acting_as(credentials: Credentials) -> Iterator[None]:
    """Take on the effective identity and groups of the user; nothing changes when we are that user, or may not.

    The real and saved ids stay ours, so the user can neither signal nor trace us. For one thread and code that does not
    wait: identities belong to the whole process.
    """
    if os.geteuid() != 0 or credentials.uid == 0:
        yield
        return
    own_groups, own_gid = os.getgroups(), os.getegid()
    try:
        os.setgroups(credentials.groups)
        os.setegid(credentials.gid)
        os.seteuid(credentials.uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(own_gid)
        os.setgroups(own_groups)
