"""Process infrastructure: settings, logs, metrics, durable files, daemons and gRPC plumbing; knows no job and no hook."""
