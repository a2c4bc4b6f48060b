#!/bin/sh
# crun --task-prolog: a user's own, after TaskProlog, with the environment TaskProlog left.
echo "print --task-prolog sees GREETING=$GREETING"
