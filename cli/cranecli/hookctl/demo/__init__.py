"""A story with a failing Prolog, told with real programs on this machine.

`story` runs it on a local cluster with the example scripts in `scripts`, which cover all ten hook points and are a start for own ones.
"""
