"""What is one job's on this node, whatever its steps: its cell, its limits, its use."""
