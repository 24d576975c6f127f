"""One self-contained HTML page about one connect(), or about a run of the demo."""
