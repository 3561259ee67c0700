"""From a config to a jitted step: state, optimizer, mesh, program, checkpoints."""
