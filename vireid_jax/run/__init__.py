"""The process and what a run leaves on disk: errors, signals, memory, log, workdir."""
