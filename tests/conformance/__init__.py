"""One kit for every dialect: the same named scenarios, over each vendor's emulator."""
