"""Prolog and Epilog on this node: `node_hooks` runs them, `turns` lets them wait for one another (Serial), `processes` ends what a job leaves behind."""
