"""Which run to read next."""
