"""How the planner works, one step each: `candidates` of every layer, `search` for one of each, `explain` the choice."""
