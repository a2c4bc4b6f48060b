"""The gRPC services: `craned` for the controller, `stdio` for launchers; `messages` translates."""
