"""The cost of a training step, on this machine and on TPUs that are not here.

`dry_run` is the command, `cost` reads XLA's analyses of a compiled step, and `topology`
compiles for TPUs without one.
"""
