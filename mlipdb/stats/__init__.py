"""What is in a database: collected in one pass, shown in the terminal or as one HTML file."""
