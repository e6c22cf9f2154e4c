"""subsets."""
