"""Steps on this node: `supervisors` starts their supervisors with a `bootstrap` and listens to them (`supervisor_client`), `driver` follows each step, `stdio` meters its streams."""
