#!/bin/sh
# CranectldProlog: runs on the controller when a job is allocated, before any node hears of it.
# A status other than 0 sends a batch job back to the queue and cancels an interactive one.
echo "reserving for job $CRANE_JOB_ID of $CRANE_JOB_USER on $CRANE_JOB_NODELIST"
exit 0
