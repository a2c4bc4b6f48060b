"""gRPC for daemons: who calls (`credentials`), what errors mean (`status`), what every call gets (`interceptors`), the two ends (`server`, `channel`), and front ends without gRPC (`gateway`)."""
