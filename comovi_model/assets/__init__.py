"""Weights and bodies that travel with the package; each file says in its metadata which command made it."""
