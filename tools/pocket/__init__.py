"""PocketVQA, generated questions about pictures, and the small model that learns them."""
