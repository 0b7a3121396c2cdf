"""One request, rightly sent."""
