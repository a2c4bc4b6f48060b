"""The gRPC services: `front` for users, `nodes` for craned, `scheduler` for an external scheduler; `views` turns state into messages."""
