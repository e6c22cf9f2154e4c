"""File formats, one file each; reached by entry point."""
