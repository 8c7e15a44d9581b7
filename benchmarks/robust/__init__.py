"""The leaderboard of networks that withstand attacks: its entries, how they are attacked, its page."""
