"""What the curation report counts and shows."""
