"""TCP of Linux for the client side of a connection, and enough of a server to talk to itself."""
