"""The nouns of the domain as frozen values: ids, hook points, runs and outcomes, jobs and steps, nodes and drains. Standard library only; imports nothing of the engine."""
