#!/bin/sh
# TaskProlog: runs as the user before each task, with the task's environment. Its output steers the task:
# `export NAME=value` and `unset NAME` change the environment, `print TEXT` goes to the task's output; other lines are ignored.
echo "export GREETING=HelloFromTaskProlog"
echo "unset MANPATH"
echo "print TaskProlog prepared task $CRANE_PROCID on $CRANE_NODENAME"
