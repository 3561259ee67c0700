"""A data set of your own: image files, and a CSV file with their labels."""
