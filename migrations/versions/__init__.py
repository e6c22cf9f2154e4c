"""One revision a file; none imports the models."""
