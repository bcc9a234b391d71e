"""luvc-batch: answers about many pictures with Ray Data."""
