"""The node daemon: Prolog and Epilog, cgroups, and one csupervisor per step."""
