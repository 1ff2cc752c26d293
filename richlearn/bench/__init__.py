"""Protocol → plan → training → records → leaderboard: import the parts from their modules; nothing here is heavy."""
