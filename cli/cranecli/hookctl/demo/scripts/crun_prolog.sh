#!/bin/sh
# CrunProlog: runs as the user where crun was called, before the step is sent to a node.
# A status other than 0 cancels the step.
exit 0
