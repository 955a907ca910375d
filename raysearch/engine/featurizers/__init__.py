"""Featurizers: maps from an activation to features and a rest, and back without loss; given, fit to
activations, or trained."""
