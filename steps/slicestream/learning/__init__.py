"""Networks, data, training loop and model export. The only torch."""
