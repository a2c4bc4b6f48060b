#!/bin/bash
# Prolog: runs as root on a node before the first step of a job there.
# A status other than 0 keeps the job off the node: the node is drained, a batch job goes back to the queue.
#
# Hooks get no PATH, so that no user can slip in a program: set one, or use absolute paths.
PATH=/usr/sbin:/usr/bin:/sbin:/bin

# Beside this script: the state directory of the cluster that it was copied to.
STATE_DIR="${BASH_SOURCE[0]%/hooks/*}"
LOG_FILE="$STATE_DIR/prolog.log"
MIN_FREE_MB=64

log() {
    echo "[$(date '+%Y-%m-%d %H:%M:%S')] job $CRANE_JOB_ID on $CRANE_NODENAME: $*" >>"$LOG_FILE"
}

log "prolog starts (account ${CRANE_JOB_ACCOUNT:-none}, nodes $CRANE_JOB_NODELIST)"

# What a health check finds on a real node (a missing mount, a dead GPU), this one reads from a file.
if [[ -e "$STATE_DIR/broken-$CRANE_NODENAME" ]]; then
    reason=$(<"$STATE_DIR/broken-$CRANE_NODENAME")
    log "unhealthy: $reason"
    echo "node $CRANE_NODENAME is unhealthy: $reason"
    exit 1
fi

free_mb=$(awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo)
if ((free_mb < MIN_FREE_MB)); then
    log "memory low: $free_mb MB"
    echo "node $CRANE_NODENAME has $free_mb MB of memory left, a job needs $MIN_FREE_MB"
    exit 1
fi

log "prolog ends: $free_mb MB of memory available"
exit 0
