"""mlipdb."""
