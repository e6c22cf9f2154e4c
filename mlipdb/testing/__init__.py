"""Conformance suites that plug-in authors subclass, and tiny structures, teachers and databases for tests."""
