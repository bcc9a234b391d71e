"""The training of the pocket VLM on PocketVQA."""
