"""Which timeout bounds which hook point, by profile (pure)."""

from dataclasses import dataclass

from cranehooks.model.points import CONTRACTS, HookPoint, Phase, Runner
from cranehooks.profiles import Profile, SharedTimeout


@dataclass(frozen=True, slots=True)
class HookTimeouts:
    """The timeouts of a configuration file in seconds; None: not given."""

    prolog_s: float | None = None
    epilog_s: float | None = None
    both_s: float | None = None
    """PrologEpilogTimeout."""
    crun_prolog_s: float | None = None
    crun_epilog_s: float | None = None


def timeouts_of(profile: Profile, given: HookTimeouts) -> dict[HookPoint, float | None]:
    """The effective timeout of every point in seconds; None: no limit (crun hooks only)."""
    return {point: _timeout_of(point, profile, given) for point in HookPoint}


def _timeout_of(point: HookPoint, profile: Profile, given: HookTimeouts) -> float | None:
    contract = CONTRACTS[point]
    before = contract.phase is Phase.BEFORE
    if contract.runner is Runner.CRUN:
        return given.crun_prolog_s if before else given.crun_epilog_s
    if contract.runner is Runner.CSUPERVISOR and not profile.timeouts_cover_task_hooks:
        return profile.default_timeout_s
    own = given.prolog_s if before else given.epilog_s
    first, second = (given.both_s, own) if profile.shared_timeout is SharedTimeout.OVERRIDES else (own, given.both_s)
    if first is not None:
        return first
    return profile.default_timeout_s if second is None else second
