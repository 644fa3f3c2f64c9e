"""What is shown to whoever runs etherws: one WSGI application for status, events, metrics and the live page."""
