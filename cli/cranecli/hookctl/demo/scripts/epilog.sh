#!/bin/bash
# Epilog: runs as root on every node of a job when the job's last process there is gone, also where no Prolog ran.
# A status other than 0 drains the node; the job's result stays.
PATH=/usr/sbin:/usr/bin:/sbin:/bin

# What a job may leave on a node: files in a directory of its own, for example. Safe to repeat, and where there is nothing to do.
rm -rf "/tmp/crane-job-${CRANE_JOB_ID:-none}-${CRANE_NODENAME:-none}"
exit 0
