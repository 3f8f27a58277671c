"""Faults in a mesh with two replicas of everything, which all tests here share."""
