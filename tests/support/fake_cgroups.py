"""A version 2 hierarchy of plain files, with the rules of the kernel that matter: for machines that have none with controllers."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

_FILES = {
    "memory": {"memory.max": "max", "memory.swap.max": "max", "memory.oom.group": "0", "memory.peak": "0"},
    "cpu": {"cpu.max": "max 100000", "cpu.weight": "100"},
    "pids": {"pids.max": "max"},
    "cpuset": {"cpuset.cpus": ""},
    "io": {"io.weight": "default 100"},
}
_ALWAYS = {
    "cgroup.procs": "",
    "cgroup.subtree_control": "",
    "cgroup.events": "populated 0\nfrozen 0\n",
    "cpu.stat": "usage_usec 0\nuser_usec 0\n",
}


class FakeUnified:
    """Our own cgroup is `base`, which has these controllers."""

    def __init__(self, directory: Path, controllers: str = "cpuset cpu io memory pids", *, is_root: bool = False) -> None:
        self.base = directory / "own.service"
        self.base.mkdir(parents=True)
        self._fill(self.base, set(controllers.split()))
        if is_root:
            (self.base / "cgroup.events").unlink()

    @contextmanager
    def working(self) -> Iterator["FakeUnified"]:
        """While open, directories made and files written below the base behave as cgroups do."""
        mkdir, rmdir, write = Path.mkdir, Path.rmdir, os.write

        def fake_mkdir(path: Path) -> None:
            mkdir(path)
            if path.is_relative_to(self.base):
                self._fill(path, set((path.parent / "cgroup.subtree_control").read_text().split()))

        def fake_rmdir(path: Path) -> None:
            if path.is_relative_to(self.base) and path.is_dir() and not any(each.is_dir() for each in path.iterdir()):
                for file in path.iterdir():
                    file.unlink()
            rmdir(path)

        def fake_write(fd: int, data: bytes) -> int:
            path = Path(os.readlink(f"/proc/self/fd/{fd}"))  # noqa: PTH115 - no file, so no Path
            if not path.is_relative_to(self.base):
                return write(fd, data)
            if path.name == "cgroup.subtree_control":
                self._pass_on(path.parent, data.decode())
            else:
                path.write_text(data.decode())
            return len(data)

        with patch.object(Path, "mkdir", fake_mkdir), patch.object(Path, "rmdir", fake_rmdir), patch("os.write", fake_write):
            yield self

    def populate(self, directory: Path, *pids: int) -> None:
        (directory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))

    def _pass_on(self, directory: Path, order: str) -> None:
        controller = order.removeprefix("+")
        if controller not in (directory / "cgroup.controllers").read_text().split():
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        has_processes = (directory / "cgroup.procs").read_text().strip() and (directory / "cgroup.events").exists()
        if has_processes:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        control = directory / "cgroup.subtree_control"
        control.write_text(" ".join(sorted({*control.read_text().split(), controller})))
        for child in directory.iterdir():
            if child.is_dir():
                self._fill(child, set(control.read_text().split()))

    def _fill(self, directory: Path, controllers: set[str]) -> None:
        (directory / "cgroup.controllers").write_text(" ".join(sorted(controllers)) + "\n")
        files = dict(_ALWAYS)
        for controller in controllers:
            files |= _FILES[controller]
        for name, text in files.items():
            if not (directory / name).exists():
                (directory / name).write_text(text)
