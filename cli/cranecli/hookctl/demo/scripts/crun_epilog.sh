#!/bin/sh
# CrunEpilog: runs as the user where crun was called, after the step ended.
exit 0
