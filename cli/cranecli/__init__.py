"""The front ends: crun, cbatch, calloc for users and hookctl for administrators."""
