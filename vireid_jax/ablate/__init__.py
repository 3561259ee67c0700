"""Studies: the rows of a table trained with several seeds, and how they differ."""
