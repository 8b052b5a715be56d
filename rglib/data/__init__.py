"""Images: where they come from, what files may hold, and the stores that training reads."""
