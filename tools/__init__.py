"""Commands around a bundle: run, serve, measure, check; and PocketVQA."""
