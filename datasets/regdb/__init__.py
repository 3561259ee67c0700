"""The RegDB data set: a visible and a thermal camera side by side, ten trials."""
