"""What was run where, as a Workflow Run RO-Crate, and what of it may be told. The only import of rocrate."""
