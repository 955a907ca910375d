"""Training of featurizers on pairs, many at once, so that the output under the interchange becomes
the counterfactual."""
