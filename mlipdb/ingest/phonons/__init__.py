"""Finite-displacement phonon calculations: as frames, and from the files in which they are published."""
