"""The configuration of a whole cluster: one YAML file, read, checked as a whole and turned into values.

`schema` and `cluster` say what the keys mean, `values` how single values are written, `consistency` what they must mean together,
`document` where they stand in the file, `timeouts` how the profile resolves them; `loading` puts it together.
"""

from cranehooks.settings.cluster import ClusterSettings, NodeSettings, PartitionSettings, json_schema
from cranehooks.settings.loading import load
from cranehooks.settings.schema import Containment, LogLevel, SchedulerKind

__all__ = [
    "ClusterSettings",
    "Containment",
    "LogLevel",
    "NodeSettings",
    "PartitionSettings",
    "SchedulerKind",
    "json_schema",
    "load",
]
