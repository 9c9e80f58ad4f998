"""The sites, a small marked-out job for each workflow, and what an undisturbed run makes of it."""
