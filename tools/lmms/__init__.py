"""A bundle as a model of lmms-eval; nothing but lmms-eval's registry loads what is in here."""
