"""The only code that blocks, owns a thread or starts a process."""
