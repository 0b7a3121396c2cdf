"""What stands behind `agentruns.tools`: signatures and arguments of handlers, their threads."""
