"""The hook engine: what hooks exist, which scripts run in which order, how one run goes, what a failure means.

`model` holds the values; `plan`, `lifecycle`, `policy`, `environment` and `directives` decide without I/O;
`journal` remembers; `execution` does; `wire` translates to protobuf.
"""
