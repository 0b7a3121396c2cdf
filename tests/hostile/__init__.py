"""Servers, networks and bodies that mean no good: each ends in an error that the documents name, or is survived."""
