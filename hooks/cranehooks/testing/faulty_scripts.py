"""Hook scripts that misbehave, and a few that do not, for tests and for trying a configuration."""

import shlex
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class HookScripts:
    """Writes scripts into a directory; every method returns the absolute path of the new script."""

    directory: Path

    def write(self, name: str, *lines: str, interpreter: str = "#!/bin/sh", mode: int = 0o755) -> str:
        """A script of these lines; an empty `interpreter` leaves out the `#!` line."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / name
        # The name gets a whole file: one that runs already goes on with the text it has.
        new = path.with_name(f"{name}.new")
        new.write_text("\n".join(([interpreter] if interpreter else []) + list(lines)) + "\n", encoding="utf-8")
        new.chmod(mode)
        new.replace(path)
        return str(path)

    def ok(self, name: str = "ok", *, says: str = "") -> str:
        """Exits 0, having said one line."""
        return self.write(name, *([f"echo {shlex.quote(says)}"] if says else []), "exit 0")

    def exits(self, code: int, name: str | None = None, *, says: str = "") -> str:
        """Ends with a status, having said one line."""
        return self.write(name or f"exit-{code}", *([f"echo {shlex.quote(says)} >&2"] if says else []), f"exit {code}")

    def kills_itself(self, number: int = signal.SIGKILL, name: str = "suicidal") -> str:
        """Dies of a signal nobody else sent."""
        return self.write(name, f"kill -{int(number)} $$", "sleep 3600")

    def appends(self, line: str, to: Path, name: str) -> str:
        """Leaves a trace of having run."""
        return self.write(name, f"echo {shlex.quote(line)} >> {shlex.quote(str(to))}")

    def hangs(self, name: str = "hangs") -> str:
        """Never ends, in a child as real scripts do."""
        return self.write(name, "sleep 3600", "exit 0")

    def ignores_term(self, name: str = "deaf") -> str:
        """Only KILL ends it."""
        return self.write(name, "trap '' TERM", "echo deaf", "while :; do sleep 3600; done")

    def exits_0_on_term(self, name: str = "polite") -> str:
        """Claims success when it is terminated."""
        return self.write(name, "trap 'exit 0' TERM", "echo ready", "sleep 3600 & wait")

    def leaves_daemon(self, pid_file: Path, name: str = "daemonizes") -> str:
        """Exits 0; a process of its own session, forked twice, with nothing of ours open, lives on and is in `pid_file`."""
        quoted = shlex.quote(str(pid_file))
        # `exec` twice, so that the pid is that of the sleeping process; the rename makes the file appear whole.
        inner = f"echo $$ > {quoted}.new; mv {quoted}.new {quoted}; exec sleep 3600"
        outer = f"setsid sh -c {shlex.quote(inner)} </dev/null >/dev/null 2>&1 &"
        return self.write(
            name,
            f"( {outer} )",
            f"while [ ! -e {quoted} ]; do sleep 0.01; done",
            # By then it says who it is.
            f"read -r pid < {quoted}",
            """until [ "$(tr '\\0' ' ' < "/proc/$pid/cmdline")" = "sleep 3600 " ]; do sleep 0.01; done""",
            "exit 0",
        )

    def leaves_child_on_pipe(self, name: str = "background") -> str:
        """Exits 0; a child that ignores TERM and HUP keeps its output open."""
        return self.write(name, "( trap '' TERM HUP; exec sleep 3600 ) &", "echo gone", "exit 0")

    def floods(self, size_bytes: int, name: str = "floods") -> str:
        """Writes that much, in lines, between `first` and `last`."""
        flood = f"head -c {size_bytes} /dev/zero | tr '\\0' 'x' | fold -w 80"
        return self.write(name, "echo first", flood, "echo", "echo last")

    def writes_binary(self, name: str = "binary") -> str:
        """Writes what is no UTF-8, and holds a NUL."""
        return self.write(name, r"printf '\377\376\000\200 abc\n'", "exit 0")

    def without_shebang(self, name: str = "no-shebang") -> str:
        """Executable text that no kernel runs."""
        return self.write(name, "exit 0", interpreter="")

    def without_interpreter(self, name: str = "no-interpreter") -> str:
        """Asks for an interpreter that does not exist."""
        return self.write(name, "exit 0", interpreter="#!/nonexistent/sh")

    def not_executable(self, name: str = "not-executable") -> str:
        """A good script without its x bits."""
        return self.write(name, "exit 0", mode=0o644)

    def writable_by_others(self, name: str = "unsafe") -> str:
        """A good script that anybody may change."""
        return self.write(name, "exit 0", mode=0o777)

    def deletes_itself(self, name: str = "deletes-itself") -> str:
        """Exits 0, and cannot be run again."""
        return self.write(name, 'rm -- "$0"', "exit 0")

    def prints_environment(self, name: str = "environment") -> str:
        """Writes its environment as the kernel has it, before any shell adds to it, one variable per line."""
        return self.write(name, "tr '\\0' '\\n' < /proc/$$/environ")

    def prints_identity(self, name: str = "identity") -> str:
        """Writes uid, gid, groups, umask, directory, session and open descriptors."""
        return self.write(
            name,
            'echo "uid=$(id -u) gid=$(id -g) groups=$(id -G)"',
            'echo "umask=$(umask) cwd=$(pwd) pid=$$ session=$(cut -d" " -f6 /proc/$$/stat)"',
            'echo "stdin=$(readlink /proc/$$/fd/0) fds=$(ls /proc/$$/fd | tr "\\n" " ")"',
        )
