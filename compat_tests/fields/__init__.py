"""The matrix of create: every field is honoured or refused by name."""
