"""Thin adapters of teachers, one file each; reached by entry point only."""
