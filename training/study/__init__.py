"""`crisp study`: the claims of the two papers behind this project, tested with many seeds and
controls."""
