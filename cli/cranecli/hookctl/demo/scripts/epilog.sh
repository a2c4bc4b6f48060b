#!/bin/bash
# Epilog: runs as root on every node of a job when the job's last process there is gone, also where no Prolog ran.
# A status other than 0 drains the node; the job's result stays.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
STATE_DIR="${BASH_SOURCE[0]%/hooks/*}"
echo "[$(date '+%Y-%m-%d %H:%M:%S')] job $CRANE_JOB_ID on $CRANE_NODENAME: epilog" >>"$STATE_DIR/prolog.log"
exit 0
