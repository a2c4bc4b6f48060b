"""The one script behind every hook of a scripted cluster: notes who it is and what it sees, then does what the test has planned.

Installed under the name of its hook point, with the interpreter and the directory put in. As a task it is called with the word `task`
and the command to become.
"""

import json
import os
import sys
from pathlib import Path

script = Path(sys.argv[0])
directory = next(parent for parent in script.parents if (parent / "trace").exists())
# What the kernel was given: an interpreter may add to its own copy.
words = [word.decode(errors="surrogateescape") for word in Path("/proc/self/environ").read_bytes().split(b"\0") if word]
environment = dict(word.split("=", 1) for word in words)
is_task = sys.argv[1:2] == ["task"]
point = "task" if is_task else script.name
# Hooks of the launch node do not know the job's name; there the label comes with the user's environment.
label = environment.get("CRANE_JOB_NAME") or environment.get("TRIAL", "")
node = environment.get("CRANE_NODENAME", "")
record = {
    "point": point,
    "label": label,
    "pid": os.getpid(),
    "uid": os.geteuid(),
    "gid": os.getegid(),
    "groups": os.getgroups(),
    "cwd": str(Path.cwd()),
    "argv": sys.argv,
    "session": os.getsid(0),
    "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1],
    "environment": environment,
}
trace = os.open(f"{directory}/trace", os.O_WRONLY | os.O_APPEND)
# One write: lines of hooks that run side by side stay whole.
os.write(trace, json.dumps(record).encode() + b"\n")
os.close(trace)
if is_task:
    if sys.argv[2:]:
        os.execvp(sys.argv[2], sys.argv[2:])
    sys.exit(0)
for name in (f"{point}@{node}", point):
    plan = directory / "plans" / label / name
    if label and plan.exists():
        os.execv("/bin/sh", ["/bin/sh", str(plan)])
