"""Who runs the jobs, and how that user gets at our front ends: the interpreter of this installation may be out of a user's reach."""

import functools
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_ORDINARY_UID = 65534
_MODULES: Mapping[str, str] = {"srun": "cranecli.crun", "sbatch": "cranecli.cbatch", "salloc": "cranecli.calloc"}
_ROOT = Path(__file__).parents[2]
_PACKAGES = [str(_ROOT / component) for component in ("kit", "hooks", "cli")]
_INTERPRETERS = (sys.executable, "/usr/local/bin/python3", "/usr/bin/python3")


@functools.cache
def _interpreter() -> str | None:
    """One that an ordinary user can run our front ends with; None: there is none."""
    test = f"import sys; sys.path[:0] = {_PACKAGES}; import {', '.join(_MODULES.values())}"
    for candidate in _INTERPRETERS:
        try:
            result = subprocess.run(
                [candidate, "-IS", "-c", test], user=_ORDINARY_UID, group=_ORDINARY_UID, extra_groups=(), cwd="/",
                capture_output=True, check=False,
            )  # fmt: skip
        except OSError:
            continue
        if result.returncode == 0:
            return candidate
    return None


def job_user() -> int | None:
    """An ordinary user, where that user can reach this installation; None: root, who runs this."""
    return None if _interpreter() is None else _ORDINARY_UID


def install(directory: Path) -> dict[str, str]:
    """Writes our front ends, for the user of the jobs, into a directory; returns their paths by the names of Slurm's."""
    directory.mkdir(exist_ok=True)
    paths: dict[str, str] = {}
    for name, module in _MODULES.items():
        path = directory / module.rpartition(".")[2]
        start = f"import sys\nsys.path[:0] = {_PACKAGES}\nfrom {module} import main\nsys.exit(main())\n"
        path.write_text(f"#!{_interpreter() or sys.executable}\n{start}")
        path.chmod(0o755)
        paths[name] = str(path)
    return paths
