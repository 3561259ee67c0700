"""The cost of a training step: here, and on TPUs that this machine does not have."""
