"""The matrix of defences: attacks x methods on the sandbox, in parts that are useful alone. See README.md here."""
