"""The client: reach a server (proxy, TCP, TLS, WebSocket upgrade), and reach it again after a loss.

Start reading at reconnect.py.
"""
