"""The controller: jobs, nodes, what a failed hook means, and the hooks that run on the controller."""
