"""slurm.conf as a source of our configuration: `conf` reads it, `nodes` and `hooks` translate its parts, `importing` writes the file.

Whatever does not come along is a `Leftover` with its place and the reason.
"""
