"""Runs hooks for real, with the standard library alone.

`process` starts one contained process; `capture` keeps a bound on what it writes; `scripts` finds and checks what may
be run; `containment` holds everything a script starts together so that nothing escapes. `engine` interprets
`cranehooks.lifecycle` over one epoll instance; `asyncio_engine` puts that on an event loop. `spawner` hosts an engine in
a small process of its own and `spawner_client` commands it from a daemon, which must not fork itself.
"""
