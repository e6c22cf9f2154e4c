"""The version of mlipdb, from its installed metadata."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("mlipdb")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
