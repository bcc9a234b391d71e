"""Commands people run around export: run, validate, demo model."""
