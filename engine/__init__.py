"""Everything below the gRPC line, and the kernel libraries; imports nothing of ours above it."""
