"""System calls and external programs. Functions are synchronous unless they are declared async."""
