"""The controller daemon: jobs, nodes, decisions, CranectldProlog and CranectldEpilog.

`jobs`, `nodes` and `breaker` decide without I/O; `scheduling` places; `controller` applies events and carries out their effects;
`store` remembers; `service` answers RPCs; `craned_client` speaks to the nodes; `app` composes.
"""
