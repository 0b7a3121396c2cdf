"""The command line: arguments in, states on the terminal out, an exit code that scripts can act on."""
