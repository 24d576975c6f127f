"""The socket layer: descriptors, struct socket, the system calls of a connection."""
