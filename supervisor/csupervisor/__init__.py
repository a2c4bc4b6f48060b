"""The step supervisor: tasks with their hooks and their stdio, one process per step and node."""
