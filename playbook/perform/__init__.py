"""Performing a plan: the only loop (`performance`), what a run is made of (`assemble`), what the language asks of the world (`world`)."""
