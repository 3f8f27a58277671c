"""Engines of our own: one worker process for each model, behind one contract."""
