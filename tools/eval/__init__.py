"""Accuracy of bundles and models on questions with known answers."""
