"""Holds together everything a script or task starts, so that all of it can be signalled, killed and told.

`cells` is the interface; `cgroup2` implements it with version 2 control groups, `session` with sessions, a child
subreaper and `/proc` for a user without delegation; `detect` chooses.
"""
