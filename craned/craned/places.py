"""The directories of a craned: what is in them, and who may enter."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from cranekit.errors import CraneError, ErrorCode

_BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
BOOT_ID_VARIABLE = "CRANE_BOOT_ID"
"""Takes the kernel's place, so that a reboot can be tried out."""


@dataclass(frozen=True, slots=True)
class Places:
    """Made by `prepare`."""

    run_dir: Path
    """Everybody may enter: the socket of the front ends."""
    state_dir: Path
    """Survives a reboot; nobody else's."""
    steps_dir: Path
    """The batch scripts, each its user's."""

    @property
    def front_socket(self) -> Path:
        return self.run_dir / "front.sock"

    @property
    def supervisors_socket(self) -> Path:
        return self.run_dir / "private" / "supervisors.sock"

    @property
    def journal(self) -> Path:
        return self.state_dir / "journal"


def prepare(run_dir: Path, state_dir: Path) -> Places:
    """Makes what is missing. Blocks on the disk.

    Raises:
        CraneError: FAILED_PRECONDITION, a directory cannot be made.
    """
    try:
        prepare_run_dir(run_dir)
        _make(run_dir / "private", 0o700)
        # A batch script is run by its path: that fails in a file system mounted noexec, as /run is on some systems.
        is_noexec = bool(os.statvfs(run_dir).f_flag & os.ST_NOEXEC)
        _make(state_dir, 0o711 if is_noexec else 0o700)
        steps_dir = (state_dir if is_noexec else run_dir) / "steps"
        _make(steps_dir, 0o711)
    except OSError as error:
        raise CraneError(ErrorCode.FAILED_PRECONDITION, f"cannot make {error.filename}: {error.strerror}") from error
    return Places(run_dir, state_dir, steps_dir)


def prepare_run_dir(run_dir: Path) -> None:
    """All that a login host needs. Raises OSError."""
    _make(run_dir, 0o755)


def _make(directory: Path, mode: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    if directory.stat().st_uid == os.geteuid():
        directory.chmod(mode)


def boot_id() -> str:
    """What changes with every boot of this node."""
    return os.environ.get(BOOT_ID_VARIABLE) or _BOOT_ID_FILE.read_text(encoding="ascii").strip()


def cgroup_instance(cluster: str, node: str, state_dir: Path) -> str:
    """What keeps the daemons of one host apart, and stays the same when this one is started again."""
    return f"{cluster}.{node}.{hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:8]}"
