"""The values that move between rooms: frozen, typed, free of I/O."""
