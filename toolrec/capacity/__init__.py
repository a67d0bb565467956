"""How many nodes, actors, replicas, hours and dollars a run takes, from what one user was measured to cost."""
