"""The chat page: static files, and the small JSON and SSE interface behind them."""
