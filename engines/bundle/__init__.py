"""The bundle format, which the exporter writes and the engines read: manifest, schedule, folder, tensors."""
