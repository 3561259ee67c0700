"""One HTML file that shows a run: `python -m vireid_jax.report --workdir DIR`."""
