"""The matrix of create: every field is implemented or refused by name."""
