"""One job's life as a pure state machine: `model` its state, `events` what happens to it and what it asks for, `machine` the rules, `steps` the part that concerns steps."""
