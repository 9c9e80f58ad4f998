"""SliceStream: train a medical-image model on an HPC site, run it on a Kubernetes cloud, from a laptop."""

__version__ = "0.1.0"
RESEARCH_ONLY = "For research only. Not a medical device, not for diagnosis."
