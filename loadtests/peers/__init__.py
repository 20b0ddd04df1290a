"""Other servers of the same dense weights, to stand beside the service under the same load."""
