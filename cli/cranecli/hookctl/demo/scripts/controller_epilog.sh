#!/bin/sh
# CranectldEpilog: runs on the controller when a job starts completing. Its failure is only logged.
echo "job $CRANE_JOB_ID gave back $CRANE_JOB_NODELIST"
exit 0
