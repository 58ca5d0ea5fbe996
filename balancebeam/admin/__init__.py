"""The admin API: authentication, REST resources, the dashboard, and the operations behind them."""
