"""What people look at: overlays, the nodule table, charts and the HTML report."""
