"""The network layer: addresses, devices and routes, IP input and output, ICMP."""
