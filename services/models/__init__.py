"""ModelService: one contract in front of every way an answer can be generated."""
