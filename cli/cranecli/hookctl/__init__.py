"""hookctl: what administrators ask and change.

`main` declares the commands, one module each; `front` is how they reach the controller and how their errors become exit codes;
`local_cluster` runs a whole cluster on this machine, from what `local_config` and `local_daemons` say, with `warden` (and `ward`, its
client) as the ancestor of its processes; `demo` is a story told with it.
"""
