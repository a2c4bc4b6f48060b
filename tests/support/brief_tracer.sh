#!/bin/sh
# hook_tracer.py in brief: notes where it is called, then does what the test has planned. Builtins alone: there is no PATH.
case $1 in
    task) point=task ;;
    *) point=${0##*/} ;;
esac
directory=${0%/hooks/*}
label=${CRANE_JOB_NAME:-$TRIAL}
node=$CRANE_NODENAME
seen="\"CRANE_NODENAME\": \"$node\", \"CRANE_JOB_ATTEMPT\": \"$CRANE_JOB_ATTEMPT\""
rest='"uid": 0, "gid": 0, "groups": [], "cwd": "", "argv": [], "session": 0, "descriptors": []'
echo "{\"point\": \"$point\", \"label\": \"$label\", \"pid\": $$, $rest, \"environment\": {$seen}}" >>"$directory/trace"
if [ "$point" = task ]; then
    shift
    [ $# -eq 0 ] || exec "$@"
    exit 0
fi
for name in "$point@$node" "$point"; do
    plan=$directory/plans/$label/$name
    [ -z "$label" ] || [ ! -e "$plan" ] || exec /bin/sh "$plan"
done
