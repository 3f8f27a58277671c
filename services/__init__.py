"""The services of Echomesh and what they share."""
