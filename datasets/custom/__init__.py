"""A data set of one's own: image files, and a CSV file that says what they are."""
