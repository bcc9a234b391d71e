"""What may stand for merged tokens in place of their plain mean: a study, nothing of it is exported."""
