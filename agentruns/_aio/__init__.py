"""What asyncio lacks: nothing here knows of runs."""
