"""The cluster's nodes: `model` their state and its rules, `breaker` the drain budget (both pure), `fleet` holds them, `sessions` is what craneds say and what follows from silence."""
