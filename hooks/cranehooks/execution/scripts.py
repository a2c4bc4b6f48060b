"""Finds the files that a point's patterns mean, and checks each before it runs: a hook as root is root's to write."""

import errno
import glob
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from cranehooks.execution.child import Stage
from cranehooks.execution.process import SpawnError
from cranehooks.plan import PatternMatch, Plan, PlanFailure, order_scripts
from cranehooks.profiles import DirectoryEntry, Profile

WINDOWS_LINE_ENDS = "has Windows line ends, which become part of its interpreter's name: convert it (sed -i 's/\\r$//')"
"""What is wrong with a script whose interpreter's name ends with a carriage return."""
_WILDCARDS = frozenset("*?[")
_READ_BYTES = 1 << 20
_RUN_PARTS_NAME = re.compile(r"[A-Za-z0-9_-]+(\.sh)?")
_MAX_LINKS = 40
"""As many as the kernel follows."""
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class UnsafeScriptError(Exception):
    """The script must not run.

    `reason` follows its path in a sentence; `errno` is what exec would have said, 0 where a rule of ours refuses it.
    """

    def __init__(self, path: str, reason: str, error: int = 0) -> None:
        super().__init__(f"{path} {reason}")
        self.path = path
        self.reason = reason
        self.errno = error


@dataclass(frozen=True, slots=True)
class CheckedScript:
    """A script that may run, as it was when it was looked at."""

    path: str
    sha256: str
    interpreter: str
    """What its `#!` line names; empty without one."""


def is_pattern(entry: str) -> bool:
    """Whether the entry means whatever files match, rather than one file."""
    return not _WILDCARDS.isdisjoint(entry)


def resolve(profile: Profile, patterns: Iterable[str]) -> list[PatternMatch]:
    """Per pattern, in the order given, the files it means now; none where nothing matches.

    A literal path means itself, whether it exists or not. The files of a pattern are in no particular order: `cranehooks.plan` orders.

    Args:
        profile: Decides what directories mean.
        patterns: Absolute.

    Raises:
        ValueError: a pattern is not absolute.
    """
    found = []
    for pattern in dict.fromkeys(patterns):
        if not pattern.startswith("/"):
            raise ValueError(f"hook script pattern must be absolute, got {pattern!r}")
        if is_pattern(pattern):
            found.append(_matches(pattern, has_directories=profile.directory_entry is DirectoryEntry.FAILS))
        elif profile.directory_entry is DirectoryEntry.RUN_PARTS and os.path.isdir(pattern):  # noqa: PTH112 - exact strings
            found.append(_run_parts(pattern))
        else:
            found.append(PatternMatch(pattern, (pattern,)))
    return found


def planned(profile: Profile, patterns: Iterable[str], *, kept: Sequence[str] | None = None) -> Plan | PlanFailure:
    """The scripts that a point's patterns mean now, in the order they run. Looks at the disk, checks nothing.

    Args:
        profile: Decides about order, empty patterns and directories.
        patterns: Absolute, in the order given.
        kept: Patterns of the scripts that may leave processes behind; empty: all of them; None: none.
    """
    plan = order_scripts(profile, resolve(profile, patterns))
    if kept is None or isinstance(plan, PlanFailure):
        return plan
    chosen = {path for match in resolve(profile, kept) for path in match.matches} if kept else set(plan.scripts)
    return replace(plan, keeps=frozenset(plan.scripts) & chosen)


def problem_of(profile: Profile, entry: str) -> str | None:
    """What keeps the scripts of one literal entry from running now, beginning with the path; None: nothing."""
    plan = planned(profile, [entry])
    if isinstance(plan, PlanFailure):
        return plan.reason
    for path in plan.scripts:
        try:
            check(path)
        except UnsafeScriptError as error:
            return str(error)
    return None


def _matches(pattern: str, *, has_directories: bool) -> PatternMatch:
    """What a pattern matches; directories are scripts like others, which fail when they are run, or are passed over."""
    found = glob.glob(pattern)  # noqa: PTH207 - exact strings
    if has_directories:
        return PatternMatch(pattern, tuple(found))
    directories = {path for path in found if os.path.isdir(path)}  # noqa: PTH112 - exact strings
    passed_over = [f"{os.path.basename(path.rstrip('/'))} (directory)" for path in sorted(directories, key=os.fsencode)]  # noqa: PTH119
    return PatternMatch(pattern, tuple(path for path in found if path not in directories), tuple(passed_over))


def _run_parts(directory: str) -> PatternMatch:
    """The scripts of a directory, as run-parts takes them, and *.sh."""
    scripts: list[str] = []
    passed_over: list[str] = []
    try:
        with os.scandir(directory) as entries:
            for entry in sorted(entries, key=lambda entry: os.fsencode(entry.name)):
                if _RUN_PARTS_NAME.fullmatch(entry.name) is None:
                    passed_over.append(f"{entry.name} (name)")
                elif entry.is_dir():
                    passed_over.append(f"{entry.name} (directory)")
                elif not _is_executable(entry):
                    passed_over.append(f"{entry.name} (not executable)")
                else:
                    scripts.append(f"{directory.rstrip('/')}/{entry.name}")
    except OSError:
        # Nobody knows what it holds: as a script it fails, and says why.
        return PatternMatch(directory, (directory,))
    return PatternMatch(directory, tuple(scripts), tuple(passed_over))


def _is_executable(entry: "os.DirEntry[str]") -> bool:
    """A link that leads nowhere counts: running it says what is wrong."""
    try:
        return entry.stat().st_mode & 0o111 != 0
    except FileNotFoundError:
        return True


def check(path: str, *, trusted_owner: bool = True) -> CheckedScript:
    """Look at the script that is about to run, and hash it.

    With `trusted_owner`, the file, every directory above it, and both again for the target of each symbolic link on the
    way, belong to root or to us and are writable by nobody else (root's sticky directories pass). Without it, the file
    needs to be regular and executable.

    Raises:
        UnsafeScriptError: it must not or cannot run; says what is wrong, where, and what to do.
    """
    try:
        target = _trusted_target(path) if trusted_owner else path
        fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_NOFOLLOW if trusted_owner else 0))
    except OSError as error:
        if not trusted_owner and error.errno == errno.EACCES and os.access(path, os.X_OK):
            # A user's program may be executable and not readable; it is run unhashed.
            return CheckedScript(path, "", "")
        raise UnsafeScriptError(path, _cause(error), error.errno or 0) from error
    try:
        _check_file(path, target, os.fstat(fd), trusted_owner=trusted_owner)
        digest, head = _hash(fd)
    except OSError as error:
        raise UnsafeScriptError(path, _cause(error), error.errno or 0) from error
    finally:
        os.close(fd)
    return CheckedScript(path, digest, _interpreter(head))


def _check_file(path: str, target: str, status: os.stat_result, *, trusted_owner: bool) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise UnsafeScriptError(
            path, "is a directory, expected a file (a pattern such as DIRECTORY/* means its files)", errno.EISDIR
        )
    if not stat.S_ISREG(status.st_mode):
        raise UnsafeScriptError(path, "is not a regular file", errno.EACCES)
    if trusted_owner:
        _check_owner(path, target, status)
    if not status.st_mode & 0o111:
        raise UnsafeScriptError(path, f"is not executable; chmod a+x {target}", errno.EACCES)


def _trusted_target(path: str) -> str:
    """The file that `path` finally names, once everything on the way to it has been found trustworthy."""
    if not path.startswith("/"):
        raise UnsafeScriptError(path, "is not an absolute path", errno.EINVAL)
    pending = list(reversed(PurePosixPath(path).parts[1:]))
    current = "/"
    _check_owner(path, current, os.stat(current))
    links = 0
    while pending:
        part = pending.pop()
        if part == "..":
            current = os.path.dirname(current)  # noqa: PTH120 - exact strings
            continue
        here = f"{current.rstrip('/')}/{part}"
        status = os.lstat(here)
        if stat.S_ISLNK(status.st_mode):
            # Who may change a link is decided by the directory it is in, which has been checked.
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), here)
            goal = PurePosixPath(os.readlink(here))  # noqa: PTH115
            if goal.is_absolute():
                current = "/"
            pending.extend(reversed([step for step in goal.parts if step != "/"]))
            continue
        if stat.S_ISDIR(status.st_mode):
            _check_owner(path, here, status)
        elif pending:
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), here)
        current = here
    return current


def _check_owner(path: str, where: str, status: os.stat_result) -> None:
    what = "" if where == path else f"is reached by way of {where}, which "
    if status.st_uid not in (0, os.geteuid()):
        raise UnsafeScriptError(
            path, f"{what}belongs to uid {status.st_uid}, expected root or uid {os.geteuid()}; chown root {where}"
        )
    if not status.st_mode & _OTHERS_WRITE:
        return
    is_roots_sticky_directory = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX and status.st_uid == 0
    if not is_roots_sticky_directory:
        mode = stat.S_IMODE(status.st_mode)
        raise UnsafeScriptError(path, f"{what}is writable by group or others (mode {mode:04o}); chmod go-w {where}")


def _hash(fd: int) -> tuple[str, bytes]:
    digest = hashlib.sha256()
    head = b""
    while chunk := os.read(fd, _READ_BYTES):
        head = head or chunk[:256]
        digest.update(chunk)
    return digest.hexdigest(), head


def _interpreter(head: bytes) -> str:
    if not head.startswith(b"#!"):
        return ""
    # As the kernel reads it: blanks and tabs end the name, a carriage return belongs to it.
    return os.fsdecode(re.split(rb"[ \t]", head[2:].split(b"\n", 1)[0].strip(b" \t"), maxsplit=1)[0])


def _cause(error: OSError) -> str:
    match error.errno:
        case errno.ENOENT:
            return "does not exist"
        case errno.ELOOP:
            return "changed into a symbolic link while it was looked at, or its links go in a circle"
        case _:
            return f"cannot be opened: {os.strerror(error.errno or 0).lower()}"


def spawn_detail(error: SpawnError, interpreter: str) -> str:
    """What the errno alone does not say."""
    if error.stage is not Stage.EXEC:
        return f"{error.stage.value}: {os.strerror(error.errno).lower()}"
    match error.errno:
        case errno.ENOEXEC:
            return "has no #! line and is no program"
        case errno.ENOENT if interpreter.endswith("\r"):
            return WINDOWS_LINE_ENDS
        case errno.ENOENT if interpreter:
            return f"its interpreter {interpreter} does not exist"
        case errno.EACCES if interpreter:
            return f"its interpreter {interpreter} may not be executed, or the file system is mounted noexec"
        case _:
            return os.strerror(error.errno).lower()
