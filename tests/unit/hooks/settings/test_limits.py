"""What of a job's request is enforced, from the configuration file."""

from pathlib import Path

import pytest

from cranehooks.settings import load
from cranekit.yaml_lines import SettingsError

MINIMAL = "ClusterName: test\nNodes: [{name: cn01, address: '127.0.0.1:1'}]\n"


def test_all_is_enforced_but_a_number_of_processes(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(MINIMAL)
    limits = load(path).job_limits
    assert (limits.constrain_ram_space, limits.constrain_swap_space, limits.constrain_cores, limits.constrain_devices) == (
        True,
    ) * 4
    assert (limits.allowed_swap_space, limits.max_processes) == (0.0, None)

    path.write_text(MINIMAL + "JobLimits: {ConstrainRAMSpace: false, AllowedSwapSpace: 50, MaxProcesses: 100}\n")
    limits = load(path).job_limits
    assert (limits.constrain_ram_space, limits.allowed_swap_space, limits.max_processes) == (False, 50.0, 100)


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ("{ConstrainRamSpace: true}", "3:13: unknown key ConstrainRamSpace: did you mean ConstrainRAMSpace?"),
        ("{ConstrainCores: often}", "3:29: ConstrainCores: expected true or false, not 'often'"),
        ("{AllowedSwapSpace: -1}", "3:31: AllowedSwapSpace: must be at least 0, not -1"),
        ("{MaxProcesses: 0}", "3:27: MaxProcesses: must be at least 1, not 0"),
        ("yes", "3:12: JobLimits: expected a mapping of keys"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path: Path, section: str, problem: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"{MINIMAL}JobLimits: {section}\n")
    with pytest.raises(SettingsError) as wrong:
        load(path)
    assert problem in str(wrong.value)
