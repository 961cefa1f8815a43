"""What we are measured against, written as well as we can write it."""
