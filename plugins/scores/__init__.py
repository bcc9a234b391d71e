"""How a visual token is scored, one method a file or folder."""
