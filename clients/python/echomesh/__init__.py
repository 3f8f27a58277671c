"""Client for Echomesh."""
