"""Students, and what is derived from any of them."""
