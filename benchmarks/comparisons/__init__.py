"""The comparisons, by the file that they are made in."""
