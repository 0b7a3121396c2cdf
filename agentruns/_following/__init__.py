"""One run, or many, to their end."""
