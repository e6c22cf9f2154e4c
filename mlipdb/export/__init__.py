"""Out of the database again, one file a format; the first come with the next part."""
