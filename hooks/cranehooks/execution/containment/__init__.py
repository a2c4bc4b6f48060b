"""Holds together everything a script or task starts, so that all of it can be limited, measured, signalled, killed and told.

`cells` is the interface and `detect` chooses the driver. `cgroup2` implements it with version 2 control groups, `cgroup1`
with version 1, `hybrid` with both; `session` with sessions, a child subreaper and `/proc` for a user without delegation.
`hierarchies` says where we stand in each hierarchy, `tree` works on directories of either version, `limits1` and `limits2`
on their files; `seats` are a cell's places in version 1 controllers. `delegation` makes room where our own processes keep
controllers from being passed on, and `sweeping` ends what a dead instance left.
"""
